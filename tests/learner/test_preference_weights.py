"""A step of online DPO has the gradient of the loss over pairs, computed by autograd in float64, in one piece."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from grpo_gsm8k.config import Config
from grpo_gsm8k.learner.oom import TokenBudget
from grpo_gsm8k.learner.preference_weights import with_pair_weights
from grpo_gsm8k.learner.update_stats import Totals
from tests.learner import derivation
from tests.learner.conftest import small_config
from tests.learner.test_objective import Scene, own

SETTINGS = {
    "dpo": ["policy_gradient=online_dpo"],
    "ipo": ["policy_gradient=online_dpo", "policy_gradient.dpo.loss=ipo", "policy_gradient.dpo.beta=0.7"],
    "temperature": ["policy_gradient=online_dpo", "policy_gradient.temperature=0.8"],
}


def weighted(scene: Scene, config: Config, tokens: int = 60) -> Totals:
    """Fill in the weights of the scene's samples; `random_groups` has three completions of a prompt."""
    groups = [scene.samples[i : i + 3] for i in range(0, len(scene.samples), 3)]
    groups, totals = with_pair_weights(scene.models.policy, groups, config, lambda: None, TokenBudget(tokens))
    scene.samples = [s for group in groups for s in group]
    return totals


def derived(scene: Scene, left_out: int | None) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """Gradient of the mean over groups, their mean loss, and the loss of every pair."""
    pg = scene.config.policy_gradient
    policy = scene.double(scene.models.policy.model)

    def score(sample: Any) -> torch.Tensor:
        ids = sample.prompt_ids.tolist(), sample.completion_ids.tolist()
        now, _, _ = own(sample, derivation.forward(policy, *ids, pg.temperature))
        with torch.no_grad():
            reference, _, _ = own(sample, derivation.forward(scene.reference, *ids, pg.temperature))
        return torch.stack(list(now)).sum() - torch.stack(list(reference)).sum()

    every, total = [], torch.zeros((), dtype=torch.float64)
    for g, (group, rewards) in enumerate(zip(scene.groups, scene.rewards, strict=True)):
        scores = [score(s) for s in group]
        kept = [i for i in range(3) if 3 * g + i != left_out]
        margins = [scores[i] - scores[j] for i in kept for j in kept if rewards[i] > rewards[j]]
        losses = [
            -logsigmoid(pg.dpo.beta * h) if pg.dpo.loss == "sigmoid" else (h - 1 / (2 * pg.dpo.beta)) ** 2
            for h in margins
        ]
        every += [loss.item() for loss in losses]
        if losses:
            total = total + torch.stack(losses).mean() / len(scene.groups)
    total.backward()  # type: ignore[no-untyped-call]
    parameters = dict(policy.named_parameters())
    gradient = [parameters[name].grad.flatten() for name, _ in scene.models.policy.named_parameters()]
    return torch.cat(gradient), total, every


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("left_out", [None, 2])
@pytest.mark.parametrize("tools", [False, True])
def test_the_gradient_is_that_of_the_loss_over_pairs(
    random_model: Path, setting: str, left_out: int | None, tools: bool
) -> None:
    config = small_config(*SETTINGS[setting])
    scene = Scene(random_model, config, tools)
    if left_out is not None:  # as overlong=mask does
        scene.samples[left_out] = replace(scene.samples[left_out], in_loss=False)
    totals = weighted(scene, config)
    _, gradient = scene.ours()
    expected, _, losses = derived(scene, left_out)
    assert (gradient - expected).norm() / expected.norm() < 5e-5
    assert totals.counts["train/pair_loss"] == len(losses)
    assert totals.sums["train/pair_loss"] == pytest.approx(sum(losses), rel=2e-5)


def test_a_step_without_a_pair_has_no_gradient(random_model: Path) -> None:
    config = small_config("policy_gradient=online_dpo")
    scene = Scene(random_model, config)
    scene.samples = [replace(s, advantages=0 * s.advantages) for s in scene.samples]
    totals = weighted(scene, config)
    loss, gradient = scene.ours()
    assert totals == Totals()
    assert loss == 0
    assert not gradient.any()


def test_micro_batches_change_nothing(random_model: Path) -> None:
    gradients = []
    for tokens in (8, 10_000):
        config = small_config("policy_gradient=online_dpo", f"learner.token_budget={tokens}")
        scene = Scene(random_model, config)
        weighted(scene, config, tokens)
        gradients.append(scene.ours()[1])
    assert (gradients[0] - gradients[1]).norm() / gradients[0].norm() < 1e-5
