"""The real engine compared with Hugging Face in float32: every sampled token, before and after hot reloads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def trace(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Record of `engine_scenario.py`, which runs in its own process because vLLM configures the whole process."""
    folder = tmp_path_factory.mktemp("engine")
    command = [sys.executable, str(HERE / "engine_scenario.py"), str(random_model), str(folder)]
    subprocess.run(command, check=True, timeout=600, env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)})
    return {"folder": folder, **json.loads((folder / "trace.json").read_text())}


def hf_logprobs(folder: Path, prompt: list[int], completion: list[int], temperature: float) -> np.ndarray:
    """Return the log-probability of each completion token from one forward pass over prompt and completion."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0].double() / temperature
    logprobs = torch.log_softmax(logits, -1)
    positions = torch.arange(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return np.asarray(logprobs[positions, torch.tensor(completion)])


def test_every_token_agrees_with_the_version_that_sampled_it(trace: dict) -> None:
    """Prompts longer than a cache block, prefix caching, tied embeddings, requests running across three swaps."""
    folder = trace["folder"]
    versions_seen: set[int] = set()
    spanning = 0
    for group in trace["groups"]:
        assert len(group["prompt"]) > 128
        for completion in group["completions"]:
            spans = completion["spans"]
            assert spans[0][1] == 0
            assert spans[-1][2] == len(completion["tokens"])
            spanning += len(spans) > 1
            for version, start, end in spans:
                versions_seen.add(version)
                expected = hf_logprobs(folder / f"hf{version}", group["prompt"], completion["tokens"], 0.8)
                assert np.abs(expected[start:end] - completion["logprobs"][start:end]).max() < 1e-3
    assert versions_seen == {0, 1, 2, 3}
    assert spanning >= 3, "no request was running while weights were swapped"


def test_versions_differ_enough_for_the_comparison(trace: dict) -> None:
    """The comparison above would fail with the wrong version."""
    folder, group = trace["folder"], trace["groups"][0]
    tokens = group["completions"][0]["tokens"]
    by_version = [hf_logprobs(folder / f"hf{v}", group["prompt"], tokens, 0.8) for v in range(4)]
    assert all(np.abs(by_version[v] - by_version[v + 1]).mean() > 0.05 for v in range(3))


def test_canary_gap_is_small_and_a_skipped_reload_is_detected(trace: dict) -> None:
    assert max(trace["canary_gaps"]) < 1e-3
    assert "did not become live" in trace["skipped_reload_error"]


def test_damaged_weights_are_refused_before_the_engine_is_touched(trace: dict) -> None:
    assert "damaged" in trace["damaged_error"]
    assert trace["generates_after_refusal"]


def test_seeds_are_spaced(trace: dict) -> None:
    """Completion i of a group equals a single request with the group's seed plus i."""
    assert trace["group_of_seed_7"] == trace["singles_of_seeds_7_and_8"]


def test_a_cancelled_group_leaves_the_engine_without_a_result(trace: dict) -> None:
    """The group beside it goes on; its tokens are compared with Hugging Face above."""
    assert "kept/0" in trace["names"]
    assert "gone/1" not in trace["names"]
    assert trace["left_nothing"]
