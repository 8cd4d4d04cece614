"""Runs in one process: what is sampled together is what is sampled alone, and samples are as old as they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import in_process, run_grid
from benchmarks.in_process import Outcome, Run, Sampler, train
from grpo_gsm8k.learner.task import Task
from grpo_gsm8k.models import EMBEDDED_TINY, stop_token_ids

SMALL = (
    "policy_gradient.updates=3",
    "policy_gradient.episodes_per_update=16",
    "data.train_size=64",
    "data.val_size=16",
)


def test_a_padded_prompt_gets_the_log_probabilities_that_it_has_alone() -> None:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_TINY)
    config = Run(SMALL, 0).config()
    task = Task(tokenizer, config, stop_token_ids(EMBEDDED_TINY, tokenizer, config.prompt.chat))
    prompts = [np.array(tokenizer(text)["input_ids"], np.int32) for text in ("1 + 2", "3 + 4 + 5 + 6 = ", "7")]
    sampled = Sampler(task, 12)._sample(prompts, 0, torch.Generator().manual_seed(1))
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_TINY, dtype=torch.float32)
    for prompt, completion in zip(prompts, sampled, strict=True):
        ids = torch.tensor(np.concatenate([prompt, completion.token_ids]))[None].long()
        rows = torch.log_softmax(model(ids).logits[0, len(prompt) - 1 : -1].double(), dim=-1)
        alone = rows.gather(1, torch.tensor(completion.token_ids)[:, None].long())[:, 0]
        assert completion.logprobs == pytest.approx(alone.detach().numpy(), abs=1e-5)


@pytest.mark.slow
def test_samples_come_from_the_weights_of_lag_updates_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[dict[str, torch.Tensor]] = []
    original = Sampler.load

    def kept(self: Sampler, weights: dict[str, torch.Tensor]) -> None:
        loaded.append(weights)
        original(self, weights)

    monkeypatch.setattr(Sampler, "load", kept)
    versions: list[int] = []
    groups = Sampler.groups

    def noted(self: Sampler, items: Any, config: Any, version: int, seed: int) -> Any:
        versions.append(version)
        return groups(self, items, config, version, seed)

    monkeypatch.setattr(Sampler, "groups", noted)
    run = Run((*SMALL, "policy_gradient.updates=5"), 0, lag=2, evaluated=8)
    first = train(run, tmp_path)
    assert versions == [0, 0, 0, 1, 2]
    _, *sampled_with, last = loaded
    assert [weights is sampled_with[0] for weights in sampled_with] == [True, True, True, False, False]
    assert last is not sampled_with[-1]
    again = train(run, tmp_path)
    assert (again.test, again.reward, again.kl_behaviour) == (first.test, first.reward, first.kl_behaviour)


def test_what_the_file_holds_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Run] = []

    def counted(run: Run, _: Path) -> Outcome:
        made.append(run)
        return Outcome(0.5, 0.6, run.seed / 10, 0.3, 0.0, 0.0, 1.0)

    class Inline:
        def __init__(self, *_: object) -> None:
            """Take what a pool takes."""

        def __enter__(self) -> Inline:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing to end."""

        def submit(self, function: Any, *arguments: Any) -> Any:
            from concurrent.futures import Future

            future: Future[Outcome] = Future()
            future.set_result(function(*arguments))
            return future

    monkeypatch.setattr(run_grid, "train", counted)
    monkeypatch.setattr(run_grid, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(run_grid, "ensure", lambda *_: None)
    runs = [Run(SMALL, seed) for seed in range(3)]
    run_grid.outcomes(runs[:2], tmp_path / "runs.jsonl", tmp_path, 1)
    found = run_grid.outcomes(runs, tmp_path / "runs.jsonl", tmp_path, 1)
    assert made == runs
    mean = run_grid.Mean.of([found[run].test for run in runs])
    assert mean.value == pytest.approx(0.1)
    assert mean.reach == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)  # t(0.975, 2)


def test_a_run_has_the_staleness_it_says() -> None:
    assert in_process.Run(SMALL, 1, lag=4).config().policy_gradient.max_staleness == 4
