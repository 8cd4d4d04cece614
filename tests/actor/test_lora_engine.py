"""Hot-swapped adapters: every sampled token is compared with peft in float32, over five versions."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.actor.small_models import save_small_model

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


@pytest.fixture(
    scope="module", params=["qwen3", *(pytest.param(name, marks=pytest.mark.more) for name in ("qwen2", "llama"))]
)
def trace(
    request: pytest.FixtureRequest, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Record of `lora_scenario.py`. vLLM handles LoRA requests of Llama and Qwen3 unlike those of Qwen2."""
    folder = tmp_path_factory.mktemp("lora")
    base = random_model if request.param == "qwen2" else save_small_model(request.param, folder / "base")
    command = [sys.executable, str(HERE / "lora_scenario.py"), str(base), str(folder)]
    subprocess.run(command, check=True, timeout=600, env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)})
    return {"folder": folder, "base": base, **json.loads((folder / "trace.json").read_text())}


@functools.cache  # loading takes longer than the forward pass
def model_of(base: Path, adapter: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()


def logprobs_of(trace: dict[str, Any], version: int, prompt: list[int], completion: list[int]) -> np.ndarray:
    model = model_of(trace["base"], trace["folder"] / f"adapter{version}")
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0].double() / 0.8
    positions = torch.arange(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return np.asarray(torch.log_softmax(logits, -1)[positions, torch.tensor(completion)])


def test_every_completion_keeps_the_adapter_that_it_started_with(trace: dict[str, Any]) -> None:
    for group in trace["groups"]:
        for completion in group["completions"]:
            assert completion["spans"] == [[group["version"], 0, len(completion["tokens"])]]
            expected = logprobs_of(trace, group["version"], group["prompt"], completion["tokens"])
            assert np.abs(expected - completion["logprobs"]).max() < 1e-3
    assert {group["version"] for group in trace["groups"]} == set(range(5))


def test_versions_differ_enough_for_the_comparison(trace: dict[str, Any]) -> None:
    group = trace["groups"][0]
    tokens = group["completions"][0]["tokens"]
    by_version = [logprobs_of(trace, v, group["prompt"], tokens) for v in range(5)]
    assert all(np.abs(by_version[v] - by_version[v + 1]).mean() > 0.02 for v in range(4))


def test_canaries_match_and_published_adapters_are_small(trace: dict[str, Any]) -> None:
    assert len(trace["canary_gaps"]) == 5
    assert max(trace["canary_gaps"]) < 1e-3
    size = sum(file.stat().st_size for file in trace["base"].glob("*.safetensors"))
    assert trace["bytes"] < size / 2


def test_an_engine_with_an_adapter_refuses_to_score_prompts(trace: dict[str, Any]) -> None:
    assert "actor.lora=merged" in trace["score_prompt_error"]


def test_a_temperature_that_vllm_would_replace_is_refused(trace: dict[str, Any]) -> None:
    assert trace["temperature_error"] == "temperature=0.001: vLLM would sample at 0.01"


def test_an_adapter_of_other_weights_fails_the_canary(trace: dict[str, Any]) -> None:
    """The fault: version 5 is published with the canary of version 4."""
    assert "weights version 5: the canary log-probabilities" in trace["wrong_adapter_error"]
