"""The critic learns before the policy moves, and learns what it learns beside a moving one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from grpo_gsm8k.config import Config
from grpo_gsm8k.learner.critic import build_critic
from grpo_gsm8k.learner.experience import prepare
from grpo_gsm8k.learner.model import load_policy, load_reference
from grpo_gsm8k.learner.objective import Models
from grpo_gsm8k.learner.optimizer import Optimizer
from grpo_gsm8k.learner.schedules import Rates
from grpo_gsm8k.learner.update import Optimizers, update_policy
from tests.learner.conftest import random_groups, random_rewards, small_config


class Trained:
    """A policy and a critic after some updates on the same rollouts, each update with its own advantages."""

    def __init__(self, folder: Path, config: Config, updates: int) -> None:
        torch.manual_seed(0)
        policy = load_policy(folder, config.learner)
        critic = build_critic(config, policy, folder)
        assert critic is not None
        reference = load_reference(folder, config.learner) if config.policy_gradient.kl.coef else None
        self.models = Models(policy, reference, critic)
        self.start = {name: p.detach().clone() for name, p in policy.named_parameters()}
        own = [Optimizer(m.named_parameters(), config.learner) for m in (policy, critic)]
        self.optimizers = Optimizers(*own)
        for step in range(updates):
            experience = prepare(random_groups(), random_rewards(), self.models, config, 0.0, beat)
            rates = Rates(1e-2, 1e-2, 0.0)
            stats = update_policy(self.models, self.optimizers, experience.groups, config, step, rates, beat)
            self.metrics = stats.metrics()

    @property
    def moved(self) -> bool:
        """Whether any weight of the policy differs from its first value."""
        return any(not torch.equal(self.start[name], p) for name, p in self.models.policy.named_parameters())

    @property
    def critic(self) -> list[torch.Tensor]:
        assert self.models.critic is not None
        return [p.detach() for _, p in self.models.critic.named_parameters()]


def beat() -> None:
    pass


def config_of(kind: str, pretrain: int, *more: str) -> Config:
    return small_config(
        *("policy_gradient=ppo", f"policy_gradient.critic.kind={kind}", "policy_gradient.entropy_coef=0.1"),
        f"policy_gradient.critic.pretrain_updates={pretrain}",
        *more,
    )


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_the_policy_does_not_move_before_its_time(random_model: Path, kind: str) -> None:
    config = config_of(kind, 2)
    trained = Trained(random_model, config, 2)
    assert not trained.moved
    assert trained.optimizers.policy.state_tensors() == {}  # nothing for its first step to remember
    assert any(bool(p.any()) for p in trained.critic)  # its head starts at zero
    assert trained.metrics["train/grad_norm"] == 0.0
    assert trained.metrics["train/policy_loss"] == 0.0
    assert trained.metrics["train/value_grad_norm"] > 0
    assert Trained(random_model, config, 3).moved


def test_a_separate_critic_learns_what_it_learns_beside_a_moving_policy(random_model: Path) -> None:
    """Its loss has no part of the policy: two updates give the same bits."""
    waiting, moving = (Trained(random_model, config_of("separate", n), 2) for n in (2, 0))
    assert moving.moved
    assert all(torch.equal(a, b) for a, b in zip(waiting.critic, moving.critic, strict=True))


def test_a_shared_critic_takes_the_same_first_step(random_model: Path) -> None:
    """In the first step of an update both see the hidden states of the same trunk."""
    once = ["policy_gradient.epochs_per_batch=1", "policy_gradient.minibatches=1"]
    waiting, moving = (Trained(random_model, config_of("shared", n, *once), 1) for n in (1, 0))
    assert moving.moved
    assert all(torch.equal(a, b) for a, b in zip(waiting.critic, moving.critic, strict=True))


def test_the_kl_coefficient_waits_for_the_policy(random_model: Path) -> None:
    """No divergence is measured that an adaptive coefficient would follow."""
    config = config_of("separate", 1, "policy_gradient.kl.coef=0.1")
    assert "train/kl_reference" not in Trained(random_model, config, 1).metrics
