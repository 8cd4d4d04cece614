"""Out of memory in the middle of a step: the step's result is that of the smaller budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grpo_gsm8k.config import Config
from grpo_gsm8k.errors import LabError, MemoryLimitError
from grpo_gsm8k.learner import experience, sft_update, update
from grpo_gsm8k.learner.model import load_policy
from grpo_gsm8k.learner.objective import Models, objective
from grpo_gsm8k.learner.oom import TokenBudget, retry_on_oom
from grpo_gsm8k.learner.optimizer import Optimizer
from grpo_gsm8k.learner.schedules import Rates
from grpo_gsm8k.learner.sft_session import as_sequences
from grpo_gsm8k.learner.update import Optimizers, microbatches, update_policy
from grpo_gsm8k.learner.update_stats import UpdateStats
from tests.learner.conftest import random_groups, random_rewards, small_config
from tests.learner.test_sft_update import random_examples

BUDGET = 120
LR = 1e-4
# Adam divides by the gradient's size: where that is next to nothing, rounding becomes a fraction of a step.
ROUNDING = 0.02 * LR
CUDA = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried ...")
Weights = dict[str, torch.Tensor]


def failing_at(call: int, error: RuntimeError, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` that runs out of memory when it is called for the `call`-th time."""
    calls = 0

    def fails(*arguments: object) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return function(*arguments)

    return fails


def train(
    folder: Path, budget: TokenBudget, *overrides: str, fail: tuple[int, RuntimeError] | None = None
) -> tuple[Weights, UpdateStats]:
    """Weights after one update of two optimizer steps, with AdamW and, where asked for, an adapter with dropout."""
    config: Config = small_config("policy_gradient.minibatches=2", *overrides)
    torch.manual_seed(0)
    policy = load_policy(folder, config.learner)
    optimizers = Optimizers(Optimizer(policy.named_parameters(), config.learner), None)
    torch.manual_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        if fail is not None:
            patch.setattr(update, "objective", failing_at(*fail, objective))
        stats = update_policy(
            Models(policy, None, None),
            optimizers,
            random_groups(8),
            config,
            0,
            Rates(LR, 0.0, 0.0),
            lambda: None,
            budget,
        )
    return {name: p.detach().clone() for name, p in policy.named_parameters()}, stats


def assert_equal(left: Weights, right: Weights) -> None:
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("error", [CUDA, CPU], ids=["cuda", "cpu"])
def test_the_step_is_that_of_the_halved_budget(random_model: Path, error: RuntimeError) -> None:
    budget = TokenBudget(BUDGET)
    found, stats = train(random_model, budget, fail=(2, error))
    assert (budget.tokens, budget.halvings) == (BUDGET // 2, 1)
    halved, expected = train(random_model, TokenBudget(BUDGET // 2))
    assert_equal(found, halved)
    assert stats.metrics() == expected.metrics()
    undisturbed, _ = train(random_model, TokenBudget(BUDGET))
    for name, weights in undisturbed.items():
        torch.testing.assert_close(found[name], weights, rtol=0, atol=ROUNDING)


def test_dropout_falls_as_it_would_have(random_model: Path) -> None:
    lora = ("learner=lora", "learner.lora.dropout=0.2")
    found, _ = train(random_model, TokenBudget(BUDGET), *lora, fail=(2, CUDA))
    halved, _ = train(random_model, TokenBudget(BUDGET // 2), *lora)
    assert_equal(found, halved)


def test_the_second_step_of_an_update(random_model: Path) -> None:
    """What the first one did stays done, and its tokens stay counted once."""
    config = small_config("policy_gradient.minibatches=2")
    policy = load_policy(random_model, config.learner)
    micros = [
        len(list(microbatches([s for i in part for s in random_groups(8)[i]], config, policy.device, BUDGET)))
        for part in update.minibatch_indices(8, 2, (config.seed, 0, 0))
    ]
    assert min(micros) >= 2
    budget = TokenBudget(BUDGET)
    found, stats = train(random_model, budget, fail=(micros[0] + 2, CUDA))
    whole, expected = train(random_model, TokenBudget(BUDGET))
    assert budget.halvings == 1
    assert stats.total("train/entropy")[1] == expected.total("train/entropy")[1]
    for name, weights in whole.items():
        torch.testing.assert_close(found[name], weights, rtol=0, atol=ROUNDING)


def test_the_passes_before_an_update_too(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proximal log-probabilities: those of the halved budget, and the update begins with what is left of it."""
    config = small_config("policy_gradient.off_policy.proximal=recomputed")
    models = Models(load_policy(random_model, config.learner), None, None)

    def prepared(tokens: int, fail: bool) -> tuple[list[experience.Sample], TokenBudget]:
        budget = TokenBudget(tokens)
        with monkeypatch.context() as patch:
            if fail:
                patch.setattr(experience, "_forward", failing_at(2, CUDA, experience._forward))
            filled = experience.prepare(random_groups(8), random_rewards(8), models, config, 0.0, lambda: None, budget)
        return [s for group in filled.groups for s in group], budget

    found, budget = prepared(BUDGET, fail=True)
    halved, _ = prepared(BUDGET // 2, fail=False)
    assert (budget.tokens, budget.halvings) == (BUDGET // 2, 1)
    assert all(np.array_equal(a.proximal_logprobs, b.proximal_logprobs) for a, b in zip(found, halved, strict=True))


def test_fine_tuning_too(random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(tokens: int, fail: bool) -> tuple[Weights, sft_update.SftStats, TokenBudget]:
        learner, budget = small_config().learner, TokenBudget(tokens)
        policy = load_policy(random_model, learner)
        samples = [s for e in random_examples() for s in as_sequences(e)]
        optimizer = Optimizer(policy.named_parameters(), learner)
        with monkeypatch.context() as patch:
            if fail:
                patch.setattr(sft_update, "pack_tokens", failing_at(2, CPU, sft_update.pack_tokens))
            stats = sft_update.fine_tune(policy, optimizer, samples, learner, 1e-3, lambda: None, budget)
        return {name: p.detach().clone() for name, p in policy.named_parameters()}, stats, budget

    found, stats, budget = step(100, fail=True)
    halved, expected, _ = step(50, fail=False)
    assert (budget.tokens, budget.halvings) == (50, 1)
    assert_equal(found, halved)
    assert stats == expected


def test_halving_ends_at_the_longest_sequence() -> None:
    told: list[int] = []
    budget = TokenBudget(100, lambda tokens, _: told.append(tokens))
    samples = [s for group in random_groups() for s in group]
    longest = max(len(s.prompt_ids) + len(s.completion_ids) for s in samples)

    def never_enough(tokens: int) -> None:
        raise CUDA

    with pytest.raises(MemoryLimitError, match=r"CUDA out of memory.*learner\.gradient_checkpointing=true") as info:
        retry_on_oom(budget, [], samples, never_enough)
    assert isinstance(info.value, LabError)
    assert told[0] == 50
    assert told[-1] == longest == budget.tokens
    assert budget.metrics == {"learner/oom_halvings": float(len(told))}


@pytest.mark.parametrize(
    "text",
    [
        "CUDA driver error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "Triton Error [CUDA]: out of memory",
    ],
)
def test_libraries_that_allocate_by_themselves(text: str) -> None:
    budget = TokenBudget(100)

    def fits_at_half(tokens: int) -> int:
        if tokens > 50:
            raise RuntimeError(text)
        return tokens

    samples = random_groups(1)[0]
    assert retry_on_oom(budget, [], samples, fits_at_half) == 50


def test_other_errors_are_not_swallowed() -> None:
    def wrong(tokens: int) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        retry_on_oom(TokenBudget(100), [], [], wrong)
