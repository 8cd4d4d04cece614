"""Advantages against numbers worked out by hand and an independent derivation."""

import math

import numpy as np
import pytest

from grpo_gsm8k.algorithms.advantages import group_advantages, zero_variance


def test_no_baseline_is_the_reward() -> None:
    rewards = np.array([[1.0, 0.0, 0.1]])
    assert np.array_equal(group_advantages(rewards, "no_baseline", 1e-6), rewards)


def test_baseline_subtracts_the_group_mean() -> None:
    # mean of (1, 0, 0, 1) is 0.5; of (1, 0, 0, 0) 0.25
    advantages = group_advantages(np.array([[1.0, 0, 0, 1], [1, 0, 0, 0]]), "reinforce_with_baseline", 1e-6)
    assert advantages.tolist() == [[0.5, -0.5, -0.5, 0.5], [0.75, -0.25, -0.25, -0.25]]


def test_grpo_divides_by_the_unbiased_std() -> None:
    # (1, 0, 0, 0): mean 1/4, squared deviations 9/16 + 3 * 1/16 = 3/4, over 3 is 1/4, so the std is 1/2
    advantages = group_advantages(np.array([[1.0, 0, 0, 0]]), "grpo_clip", 0.0)
    assert advantages.tolist() == [[1.5, -0.5, -0.5, -0.5]]


@pytest.mark.parametrize("loss_type", ["reinforce_with_baseline", "grpo_clip"])
@pytest.mark.parametrize("reward", [0.0, 0.1, 1 / 3, 0.9 + 0.1])
def test_a_tied_group_is_exactly_zero(loss_type: str, reward: float) -> None:
    rewards = np.array([[reward] * 7, [0.0] * 6 + [1.0]])
    advantages = group_advantages(rewards, loss_type, 1e-6)  # type: ignore[arg-type]
    assert np.all(advantages[0] == 0.0)
    assert np.all(advantages[1] != 0.0)
    assert zero_variance(rewards).tolist() == [True, False]


def test_grpo_against_a_loop() -> None:
    rewards = np.random.default_rng(0).normal(size=(5, 8))
    got = group_advantages(rewards, "grpo_clip", 1e-6)
    for row, expected_row in zip(got.tolist(), rewards.tolist(), strict=True):
        mean = sum(expected_row) / 8
        std = math.sqrt(sum((r - mean) ** 2 for r in expected_row) / 7)
        assert row == pytest.approx([(r - mean) / (std + 1e-6) for r in expected_row], rel=1e-12)
