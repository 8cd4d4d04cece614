"""The update's own work: minibatches, what is left out, the clip seen to act, early stop."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from grpo_gsm8k.config import Config
from grpo_gsm8k.learner import update as update_module
from grpo_gsm8k.learner.batching import Sample
from grpo_gsm8k.learner.experience import prepare
from grpo_gsm8k.learner.model import Policy, load_policy
from grpo_gsm8k.learner.objective import Models, objective
from grpo_gsm8k.learner.optimizer import Optimizer
from grpo_gsm8k.learner.schedules import Rates
from grpo_gsm8k.learner.update import Optimizers, Passes, microbatches, update_policy
from grpo_gsm8k.learner.update_stats import UpdateStats
from tests.learner.conftest import random_groups, small_config


def loss_of(policy: Policy, samples: list[Sample], config: Config) -> float:
    models = Models(policy, None, None)
    parts = [
        objective(models, micro, config, 0.0).loss.item() for micro in microbatches(samples, config, policy.device)
    ]
    return sum(parts)


def update(policy: Policy, groups: list[list[Sample]], config: Config, lr: float = 1e-2) -> UpdateStats:
    optimizers = Optimizers(Optimizer(policy.named_parameters(), config.learner), None)
    return update_policy(Models(policy, None, None), optimizers, groups, config, 0, Rates(lr, lr, 0.0), lambda: None)


def on_policy(policy: Policy, groups: list[list[Sample]]) -> list[list[Sample]]:
    """The samples with the behaviour log-probabilities that `policy` gives now."""
    config = small_config("policy_gradient.off_policy.proximal=recomputed", "policy_gradient.entropy_coef=1")
    rewards = np.zeros((len(groups), len(groups[0])))
    filled = prepare(groups, rewards, Models(policy, None, None), config, 0.0, lambda: None).groups
    return [
        [
            replace(s, behaviour_logprobs=f.proximal_logprobs, proximal_logprobs=f.proximal_logprobs)
            for s, f in zip(group, filled_group, strict=True)
        ]
        for group, filled_group in zip(groups, filled, strict=True)
    ]


def test_zero_advantage_is_left_out_without_changing_the_result(policy: Policy) -> None:
    samples = [s for group in random_groups() for s in group]
    config = small_config()
    micro = list(microbatches(samples, config, policy.device))
    assert sum(int(m.tokens.sequence_N.max()) + 1 for m in micro) == 9  # of 12
    # The nine alone, but averaged over twelve: what including three zeros gives.
    alone = loss_of(policy, [s for s in samples if s.advantages.any()], config)
    assert abs(loss_of(policy, samples, config) - alone * 9 / 12) < 1e-6 * abs(alone)


def test_a_masked_completion_leaves_loss_and_denominator(policy: Policy) -> None:
    samples = [s for group in random_groups() for s in group]
    config = small_config()
    masked = [replace(s, in_loss=i != 0) for i, s in enumerate(samples)]
    assert loss_of(policy, masked, config) == loss_of(policy, samples[1:], config)


def test_a_prompt_is_computed_once_for_its_completions(policy: Policy) -> None:
    group = random_groups(groups=1)[0]
    (micro,) = microbatches(group, small_config(), policy.device)
    fed = sum(len(s.completion_ids) - 1 for s in group)  # the last token of a completion predicts nothing
    assert len(micro.tokens.input_ids_T) == len(group[0].prompt_ids) + fed


def test_clip_acts_from_the_second_epoch_on(policy: Policy) -> None:
    config = small_config("policy_gradient.epochs_per_batch=2", "policy_gradient.minibatches=2")
    metrics = update(policy, on_policy(policy, random_groups(8)), config).metrics()
    assert metrics["train/optimizer_steps"] == 4
    assert metrics["train/clip_frac"] > 0
    assert metrics["train/ratio_max"] > 1.2
    assert metrics["sync/logprob_gap_max"] < 1e-4  # measured before the first optimizer step only


def test_epochs_stop_early_when_the_policy_has_moved_too_far(policy: Policy) -> None:
    config = small_config("policy_gradient.epochs_per_batch=5", "policy_gradient.target_kl=0.001")
    metrics = update(policy, on_policy(policy, random_groups(8)), config).metrics()
    assert metrics["train/epochs"] == 2  # the first begins with no divergence, the second sees what it did
    assert metrics["train/approx_kl"] > 0


def test_nothing_to_learn_is_finite(policy: Policy) -> None:
    """All advantages zero: no forward pass, no step, and metrics without 0/0."""
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    metrics = update(policy, [random_groups()[1]], small_config()).metrics()
    assert metrics["train/loss"] == 0.0
    assert metrics["train/grad_norm"] == 0.0
    assert all((before[name] == p).all() for name, p in policy.named_parameters())


def gap_by_hand(policy: Policy, samples: list[Sample]) -> np.ndarray:
    """|engine - learner| of the on-policy tokens, each completion computed alone by the plain model."""
    gaps = []
    for s in samples:
        ids = torch.tensor([*s.prompt_ids, *s.completion_ids])[None]
        with policy.inference(), policy.plain_attention() as model:
            logits = model(ids).logits[0].double()
        rows = torch.log_softmax(logits, -1)[len(s.prompt_ids) - 1 : -1]
        logprobs = rows.gather(1, torch.tensor(s.completion_ids, dtype=torch.long)[:, None])[:, 0].numpy()
        gaps.append(np.abs(logprobs - s.behaviour_logprobs)[s.on_policy])
    return np.concatenate(gaps)


def test_the_gap_is_measured_where_no_completion_has_an_advantage(policy: Policy) -> None:
    group = random_groups(size=4)[1]
    mixed = [*group[:3], replace(group[3], on_policy=np.zeros_like(group[3].on_policy))]
    metrics = update(policy, [mixed], small_config()).metrics()
    expected = gap_by_hand(policy, mixed)  # nothing was learned, so these are still the weights from before
    assert abs(metrics["sync/logprob_gap_mean"] - expected.mean()) < 1e-5
    assert abs(metrics["sync/logprob_gap_max"] - expected.max()) < 1e-5
    assert "train/entropy" not in metrics


def test_the_gap_is_measured_with_the_weights_from_before_the_update(policy: Policy) -> None:
    """The tokens with an advantage are stale, those sampled by the present version have none."""
    groups = random_groups(4)
    stale = [[replace(s, on_policy=np.zeros_like(s.on_policy)) for s in group] for group in groups]
    stale[1] = groups[1]
    expected = gap_by_hand(policy, groups[1])
    metrics = update(policy, stale, small_config("policy_gradient.minibatches=4")).metrics()
    assert abs(metrics["sync/logprob_gap_mean"] - expected.mean()) < 1e-5


def test_no_gap_without_a_token_of_the_trained_version(policy: Policy) -> None:
    stale = [[replace(s, on_policy=np.zeros_like(s.on_policy)) for s in group] for group in random_groups(3)]
    assert "sync/logprob_gap_mean" not in update(policy, stale, small_config()).metrics()


def test_measuring_the_gap_does_not_change_what_is_learned(random_model: Path) -> None:
    """Bit by bit, with the gap measured by extra passes and without; LoRA dropout draws random numbers."""
    config = small_config("learner=lora", "learner.lora.dropout=0.2")
    stale = [[replace(s, on_policy=np.zeros_like(s.on_policy)) for s in group] for group in random_groups(3)]
    found = []
    for groups in (stale, [stale[0], random_groups(3)[1], stale[2]]):
        torch.manual_seed(0)
        policy = load_policy(random_model, config.learner)
        gap = "sync/logprob_gap_mean" in update(policy, groups, config).metrics()
        found.append((gap, [p.detach().clone() for _, p in policy.named_parameters()]))
    assert [gap for gap, _ in found] == [False, True]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_the_host_reads_nothing_from_the_device_between_micro_batches(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that is read within the passes would make a GPU wait for the next micro-batch to be packed."""
    config = small_config("learner.token_budget=40", "policy_gradient=gspo")
    samples = [s for group in random_groups(8) for s in group]
    passes = Passes(Models(policy, None, None), samples, config, 0.0, lambda: None)
    reads: list[str] = []
    micro_batches = list(microbatches(samples, config, policy.device))
    assert len(micro_batches) > 3
    monkeypatch.setattr(update_module, "microbatches", lambda *_: iter(micro_batches))
    with Reads(reads):
        passes.run(config.learner.token_budget)
        assert reads == []  # the one read at the end, `tolist`, is not an operation
        float(micro_batches[0].advantages_N.sum())
    assert reads == ["_local_scalar_dense"]


class Reads(TorchDispatchMode):
    """Counts the operations that would wait for a GPU: numbers read from tensors, and results of unknown size."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "bincount", "item"}:
            self._found.append(name)
        return func(*args, **(kwargs or {}))


def test_clipped_tokens_are_below_or_above(policy: Policy) -> None:
    """Fractions and extremes, recomputed token by token from PPO's rule."""
    groups = random_groups(8)
    config = small_config("policy_gradient.cliprange=0.02", "policy_gradient.cliprange_high=0.3")
    low = high = total = 0
    ratios = []
    for micro in microbatches([s for group in groups for s in group], config, policy.device):
        output = objective(Models(policy, None, None), micro, config, 0.0)
        for log_ratio, advantage in zip(output.log_ratio_N.tolist(), micro.advantages_N.tolist(), strict=True):
            ratio = math.exp(log_ratio)
            ratios.append(ratio)
            low += ratio < 0.98 and advantage < 0
            high += ratio > 1.3 and advantage > 0
            total += 1
    assert low > 0
    assert high > 0
    metrics = update(policy, groups, config).metrics()
    assert metrics["train/clip_frac_low"] == pytest.approx(low / total)
    assert metrics["train/clip_frac_high"] == pytest.approx(high / total)
    assert metrics["train/clip_frac"] == pytest.approx((low + high) / total)
    assert metrics["train/ratio_min"] == pytest.approx(min(ratios), rel=1e-5)
    assert metrics["train/ratio_max"] == pytest.approx(max(ratios), rel=1e-5)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_log_probabilities_that_are_not_finite_skip_the_step(random_model: Path, value: float) -> None:
    """Clipping turns an infinite ratio into a finite gradient, which must not be applied."""
    config = small_config()
    policy = load_policy(random_model, config.learner)
    groups = random_groups()
    behaviour = groups[0][0].behaviour_logprobs.copy()
    behaviour[1] = value
    groups[0][0] = replace(groups[0][0], behaviour_logprobs=behaviour, proximal_logprobs=behaviour)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    stats = update(policy, groups, config)
    assert stats.metrics()["train/skipped_steps"] == 1
    assert all(torch.equal(p, before[name]) for name, p in policy.named_parameters())
