"""Completions without a token in the loss: their tokens are all too old (policy_gradient.late=partial)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from grpo_gsm8k.learner.critic import build_critic
from grpo_gsm8k.learner.experience import Experience, Groups, experience_metrics, prepare
from grpo_gsm8k.learner.model import Policy, load_policy, load_reference
from grpo_gsm8k.learner.objective import Models
from grpo_gsm8k.learner.optimizer import Optimizer
from grpo_gsm8k.learner.schedules import Rates
from grpo_gsm8k.learner.update import Optimizers, update_policy
from tests.learner.conftest import random_groups, random_rewards, small_config

KL_REWARD = ("policy_gradient.kl.coef=0.1", "policy_gradient.kl.place=reward")
METHODS = {
    "grpo": (),
    "gspo_entropy": ("policy_gradient=gspo", "policy_gradient.entropy_coef=0.1"),
    "ppo": ("policy_gradient=ppo",),
    "ppo_kl_reward": ("policy_gradient=ppo", *KL_REWARD),
    "whitened": ("policy_gradient=reinforce_plus_plus", *KL_REWARD),
    "kl_cov": ("policy_gradient=kl_cov",),
    "gmpo_kl": ("policy_gradient=gmpo", "policy_gradient.kl.coef=0.1"),
}


def beat() -> None:
    pass


def weights_after(folder: Path, groups: Groups, *words: str) -> list[torch.Tensor]:
    """Weights of the policy after one update on these groups."""
    config = small_config(*words)
    torch.manual_seed(0)
    policy = load_policy(folder, config.learner)
    pg = config.policy_gradient
    critic = build_critic(config, policy, folder) if pg.critic.kind != "none" else None
    models = Models(policy, load_reference(folder, config.learner) if pg.kl.coef else None, critic)
    optimizers = Optimizers(
        Optimizer(policy.named_parameters(), config.learner),
        Optimizer(critic.named_parameters(), config.learner) if critic else None,
    )
    experience = prepare(groups, random_rewards(), models, config, pg.kl.coef, beat)
    update_policy(models, optimizers, experience.groups, config, 0, Rates(1e-2, 1e-2, pg.kl.coef), beat)
    return [parameter.detach() for _, parameter in policy.named_parameters()]


def with_stale(seed: int) -> Groups:
    """The same groups but for the tokens of two completions, which are not in the loss."""
    groups = random_groups()
    for group in (groups[0], groups[2]):
        length = len(group[1].completion_ids)
        group[1] = replace(
            group[1],
            completion_ids=np.random.default_rng(seed).integers(1, 90, size=length).astype(np.int32),
            behaviour_logprobs=np.full(length, -float(seed), dtype=np.float32),
            mask=np.zeros(length, dtype=bool),
            in_loss=False,
        )
    return groups


@pytest.mark.parametrize("method", METHODS)
def test_their_tokens_change_nothing(random_model: Path, method: str) -> None:
    one, other = (weights_after(random_model, with_stale(seed), *METHODS[method]) for seed in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(bool(torch.isfinite(a).all()) for a in one)
    whole = weights_after(random_model, random_groups(), *METHODS[method])
    assert not all(torch.equal(a, b) for a, b in zip(one, whole, strict=True))


def test_their_rewards_count_in_the_baseline_of_their_group(policy: Policy) -> None:
    experience = prepare(with_stale(1), random_rewards(), Models(policy, None, None), small_config(), 0.0, beat)
    rewards = random_rewards()[0]
    expected = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
    assert experience.groups[0][0].advantages[0] == pytest.approx(expected[0], rel=1e-5)
    assert experience.groups[0][2].advantages[0] == pytest.approx(expected[2], rel=1e-5)


def test_they_do_not_count_as_overlong() -> None:
    groups = with_stale(1)
    groups[1][1] = replace(groups[1][1], in_loss=False)
    experience = Experience(groups, np.zeros((4, 3)))
    config = small_config("policy_gradient.overlong=mask")
    assert experience_metrics(experience, config)["train/overlong_frac"] == pytest.approx(1 / 12)
