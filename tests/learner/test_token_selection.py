"""The choice of tokens before a step does not depend on how the step is cut into micro-batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grpo_gsm8k.learner.batching import Sample
from grpo_gsm8k.learner.model import Policy, load_policy
from grpo_gsm8k.learner.objective import Models, objective
from grpo_gsm8k.learner.oom import TokenBudget
from grpo_gsm8k.learner.token_selection import with_selection
from grpo_gsm8k.learner.update import microbatches
from tests.learner.conftest import random_groups, small_config

LOSSES = {
    "m2po": ["policy_gradient=m2po", "policy_gradient.m2po.threshold=0.02"],
    "clip_cov": [
        "policy_gradient=clip_cov",
        "policy_gradient.clip_cov.fraction=0.1",
        "policy_gradient.clip_cov.low=0.02",
    ],
    "kl_cov": ["policy_gradient=kl_cov", "policy_gradient.kl_cov.fraction=0.1"],
}


def beat() -> None:
    pass


def chosen(policy: Policy, samples: list[Sample], overrides: list[str], tokens: int) -> list[Sample]:
    return with_selection(policy, samples, small_config(*overrides), (1, 2), beat, TokenBudget(tokens))


@pytest.mark.parametrize("loss", LOSSES)
def test_selection_and_gradient_are_those_of_any_micro_batches(random_model: Path, loss: str) -> None:
    config = small_config(*LOSSES[loss])
    policy = load_policy(random_model, config.learner)
    samples = [s for group in random_groups() for s in group]
    samples[3] = replace(samples[3], in_loss=False)
    gradients = []
    picked = []
    for tokens in (8, 60, 10_000):
        marked = chosen(policy, samples, LOSSES[loss], tokens)
        picked.append(np.concatenate([s.selected for s in marked]))
        policy.model.zero_grad()
        for micro in microbatches(marked, config, policy.device, tokens):
            objective(Models(policy, None, None), micro, config, 0.0).loss.backward()
        gradients.append(np.concatenate([p.grad.flatten().numpy() for _, p in policy.named_parameters()]))
    assert picked[0].any()
    assert not picked[0].all()
    assert not chosen(policy, samples, LOSSES[loss], 60)[3].selected.any()  # left out of the loss
    for other_picked, other in zip(picked[1:], gradients[1:], strict=True):
        assert np.array_equal(picked[0], other_picked)
        # float32 sums in another order, as in test_independent_of_micro_batches_and_packing
        assert np.linalg.norm(gradients[0] - other) / np.linalg.norm(other) < 1e-5


def test_other_losses_do_not_pay_for_a_selection(random_model: Path) -> None:
    samples = [s for group in random_groups() for s in group]
    assert with_selection(None, samples, small_config(), (0,), beat, TokenBudget(1)) == samples  # type: ignore[arg-type]
