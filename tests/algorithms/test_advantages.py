"""Advantages against numbers worked out by hand and an independent derivation."""

import math

import numpy as np
import pytest

from grpo_gsm8k.algorithms.advantages import (
    ADVANTAGES,
    batch_whitened,
    group_mean,
    group_mean_std,
    leave_one_out,
    reward,
    zero_variance,
)


def test_reward_is_a_copy() -> None:
    rewards = np.array([[1.0, 0.0, 0.1]])
    advantages = reward(rewards, 1e-6)
    assert np.array_equal(advantages, rewards)
    assert advantages is not rewards


def test_group_mean() -> None:
    # mean of (1, 0, 0, 1) is 0.5; of (1, 0, 0, 0) 0.25
    advantages = group_mean(np.array([[1.0, 0, 0, 1], [1, 0, 0, 0]]), 1e-6)
    assert advantages.tolist() == [[0.5, -0.5, -0.5, 0.5], [0.75, -0.25, -0.25, -0.25]]


def test_grpo_divides_by_the_unbiased_std() -> None:
    # (1, 0, 0, 0): mean 1/4, squared deviations 9/16 + 3 * 1/16 = 3/4, over 3 is 1/4, so the std is 1/2
    assert group_mean_std(np.array([[1.0, 0, 0, 0]]), 0.0).tolist() == [[1.5, -0.5, -0.5, -0.5]]


def test_leave_one_out() -> None:
    # (1, 0, 0, 0): the others of the first average 0, those of the second (1 + 0 + 0) / 3
    assert leave_one_out(np.array([[1.0, 0, 0, 0]]), 0.0)[0].tolist() == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])


def test_whitening_over_the_batch() -> None:
    # (3, 1, 1, 3): mean 2, population std 1; groups play no part
    assert batch_whitened(np.array([[3.0, 1], [1, 3]]), 0.0).tolist() == [[1.0, -1.0], [-1.0, 1.0]]
    assert not batch_whitened(np.full((2, 2), 0.1), 1e-6).any()


@pytest.mark.parametrize("name", ["group_mean", "group_mean_std", "leave_one_out"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 0.9 + 0.1])
def test_a_tied_group_is_exactly_zero(name: str, value: float) -> None:
    rewards = np.array([[value] * 7, [0.0] * 6 + [1.0]])
    advantages = ADVANTAGES[name](rewards, 1e-6)
    assert np.all(advantages[0] == 0.0)
    assert np.all(advantages[1] != 0.0)
    assert zero_variance(rewards).tolist() == [True, False]


def test_grpo_against_a_loop() -> None:
    rewards = np.random.default_rng(0).normal(size=(5, 8))
    for row, expected_row in zip(group_mean_std(rewards, 1e-6).tolist(), rewards.tolist(), strict=True):
        mean = sum(expected_row) / 8
        std = math.sqrt(sum((r - mean) ** 2 for r in expected_row) / 7)
        assert row == pytest.approx([(r - mean) / (std + 1e-6) for r in expected_row], rel=1e-12)
