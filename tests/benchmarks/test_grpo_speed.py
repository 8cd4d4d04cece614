"""`make bench-grpo`: what is counted and compared, and the program with a tiny model."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.flops import computed_once
from benchmarks.grpo_speed.limit import learning_work
from benchmarks.grpo_speed.measured import Round, Side, Update, summary, targets
from benchmarks.grpo_speed.memory import PeakMemory
from benchmarks.grpo_speed.trl_side import updates_of
from benchmarks.grpo_speed.workload import REWARD, SMALL, Size, spread, write_model
from benchmarks.random_models import EOS, PAD
from grpo_gsm8k.learner.batching import token_sequence
from tests.conftest import REPO


def test_the_limit_counts_the_work_of_equal_sequences() -> None:
    size = Size("tiny", prompts=3, group=4, tokens=7, micro=2)
    prompt = np.arange(5, dtype=np.int32)
    groups = [[token_sequence(prompt, np.arange(size.tokens, dtype=np.int32))] * size.group] * size.prompts
    assert learning_work(len(prompt), size) == computed_once(groups)


def test_both_sides_get_the_same_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reward_of_our_run.py").write_text(REWARD)
    monkeypatch.syspath_prepend(tmp_path)
    reward = importlib.import_module("reward_of_our_run")
    assert reward.spread(SimpleNamespace(text="1 + 2 = 4")) == spread("1 + 2 = 4")


def test_the_end_of_the_sequence_is_never_sampled(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(write_model(tmp_path, SMALL), dtype=torch.float64)
    ids = torch.from_numpy(np.random.default_rng(0).integers(3, 99, size=(8, 40)))
    with torch.no_grad():
        logprobs = torch.log_softmax(model(ids).logits, -1)
    assert float(logprobs[..., [PAD, EOS]].max()) < -20
    others = logprobs[..., 3:]
    assert float(others.std(-1).min()) > 0  # the rest is still a distribution of the context


def test_the_clock_of_trl_is_cut_into_updates() -> None:
    clock = [("begin", 10.0), ("generated", 3.0), ("end", 15.0), ("begin", 16.0), ("generated", 1.0), ("end", 18.0)]
    assert updates_of(clock) == [Update(5.0, 3.0, 2.0), Update(2.0, 1.0, 1.0)]


def test_medians_of_all_updates_and_the_largest_memory() -> None:
    rounds = [
        Round([Update(4.0, 3.0, 1.0), Update(2.0, 1.0, 1.0)], PeakMemory(100, 80, 5)),
        Round([Update(3.0, 1.5, 1.5)], PeakMemory(90, 85, 6)),
    ]
    assert summary(rounds) == Side(3.0, 1.5, 1.0, 100, 85, 6)


def test_targets() -> None:
    ours, trl = Side(10.0, 5.0, 5.0, 200.0, 100.0, 0.0), Side(31.0, 20.0, 11.0, 190.0, 180.0, 0.0)
    speed, share, memory = targets(ours, trl, limit_s=8.0)
    assert (speed.value, speed.met) == (3.1, False)
    assert (share.value, share.met) == (0.8, True)
    assert not memory.met
    assert [target.met for target in targets(ours, None, limit_s=7.9)] == [False]


@pytest.mark.slow
@pytest.mark.parametrize("beside", ["alone", "trl"])
def test_whole_updates_with_a_tiny_model(tmp_path: Path, beside: str) -> None:
    if beside == "trl" and importlib.util.find_spec("trl") is None:
        pytest.skip("TRL is not installed: make bench-grpo installs it")
    output = tmp_path / "figures.json"
    words = ["--small", "--rounds", "1", "--updates", "1", "--output", str(output)]
    words += ["--no-trl"] if beside == "alone" else []
    command = [sys.executable, "-m", "benchmarks.grpo_speed", *words]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    assert found["ours"]["resident_mb"] > found["ours"]["shared_files_mb"] > 0
    assert (found["trl"] is None) == (beside == "alone")
