"""Advantages against numbers worked out by hand and an independent derivation."""

import itertools
import math

import numpy as np
import pytest

from grpo_gsm8k.algorithms.advantages import (
    ADVANTAGES,
    Scores,
    batch_whitened,
    group_mean,
    group_mean_rescaled,
    group_mean_std,
    group_mean_whitened,
    leave_one_out,
    length_weighted,
    mean_normalized,
    pass_at_k,
    reward,
    zero_variance,
)
from grpo_gsm8k.errors import UserError


def scores(rewards: object, eps: float, lengths: object = None, k: int | None = None) -> Scores:
    """Completions of one token each, unless `lengths` says otherwise."""
    rewards_GN = np.asarray(rewards, dtype=np.float64)
    return Scores(
        rewards_GN, np.ones(rewards_GN.shape, dtype=np.int64) if lengths is None else np.array(lengths), eps, k
    )


def test_reward_is_a_copy() -> None:
    rewards = np.array([[1.0, 0.0, 0.1]])
    advantages = reward(scores(rewards, 1e-6))
    assert np.array_equal(advantages, rewards)
    assert advantages is not rewards


def test_group_mean() -> None:
    # mean of (1, 0, 0, 1) is 0.5; of (1, 0, 0, 0) 0.25
    advantages = group_mean(scores(np.array([[1.0, 0, 0, 1], [1, 0, 0, 0]]), 1e-6))
    assert advantages.tolist() == [[0.5, -0.5, -0.5, 0.5], [0.75, -0.25, -0.25, -0.25]]


def test_grpo_divides_by_the_unbiased_std() -> None:
    # (1, 0, 0, 0): mean 1/4, squared deviations 9/16 + 3 * 1/16 = 3/4, over 3 is 1/4, so the std is 1/2
    assert group_mean_std(scores(np.array([[1.0, 0, 0, 0]]), 0.0)).tolist() == [[1.5, -0.5, -0.5, -0.5]]


def test_leave_one_out() -> None:
    # (1, 0, 0, 0): the others of the first average 0, those of the second (1 + 0 + 0) / 3
    assert leave_one_out(scores(np.array([[1.0, 0, 0, 0]]), 0.0))[0].tolist() == pytest.approx(
        [1.0, -1 / 3, -1 / 3, -1 / 3]
    )


def test_whitening_over_the_batch() -> None:
    # (3, 1, 1, 3): mean 2, population std 1; groups play no part
    assert batch_whitened(scores(np.array([[3.0, 1], [1, 3]]), 0.0)).tolist() == [[1.0, -1.0], [-1.0, 1.0]]
    assert not batch_whitened(scores(np.full((2, 2), 0.1), 1e-6)).any()


@pytest.mark.parametrize(
    "name", ["group_mean", "group_mean_std", "leave_one_out", "length_weighted", "mean_normalized"]
)
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 0.9 + 0.1])
def test_a_tied_group_is_exactly_zero(name: str, value: float) -> None:
    rewards = np.array([[value] * 7, [0.0] * 6 + [1.0]])
    advantages = ADVANTAGES[name](scores(rewards, 1e-6))
    assert np.all(advantages[0] == 0.0)
    assert np.all(advantages[1] != 0.0)
    assert zero_variance(rewards).tolist() == [True, False]


def test_grpo_against_a_loop() -> None:
    rewards = np.random.default_rng(0).normal(size=(5, 8))
    for row, expected_row in zip(group_mean_std(scores(rewards, 1e-6)).tolist(), rewards.tolist(), strict=True):
        mean = sum(expected_row) / 8
        std = math.sqrt(sum((r - mean) ** 2 for r in expected_row) / 7)
        assert row == pytest.approx([(r - mean) / (std + 1e-6) for r in expected_row], rel=1e-12)


def test_group_mean_whitened_is_a_whitening_over_tokens() -> None:
    rng = np.random.default_rng(1)
    rewards, lengths = rng.normal(size=(3, 4)), rng.integers(1, 9, size=(3, 4))
    tokens = np.concatenate([np.full(lengths[g, n], rewards[g, n] - rewards[g].mean()) for g, n in np.ndindex(3, 4)])
    expected = (rewards - rewards.mean(axis=1)[:, None] - tokens.mean()) / (tokens.std() + 0.1)
    assert group_mean_whitened(scores(rewards, 0.1, lengths)) == pytest.approx(expected, rel=1e-12)
    assert not group_mean_whitened(scores(np.full((2, 3), 1 / 3), 1e-6)).any()


def test_group_mean_rescaled_is_a_mean_over_groups_with_variance() -> None:
    # two of four groups are tied: their completions contribute nothing, the others twice as much
    rewards = np.array([[1.0, 0], [1, 1], [0, 1], [0, 0]])
    assert group_mean_rescaled(scores(rewards, 0.0)).tolist() == [[1.0, -1.0], [0.0, 0.0], [-1.0, 1.0], [0.0, 0.0]]
    assert not group_mean_rescaled(scores(rewards[[1, 3]], 0.0)).any()


def test_length_weighted_by_hand() -> None:
    # lengths 1 and 3, rewards 1 and 0: baseline (1 * 1 + 3 * 0) / 4
    assert length_weighted(scores([[1.0, 0.0]], 0.0, [[1, 3]])).tolist() == [[0.75, -0.25]]
    assert not length_weighted(scores([[0.1, 0.1, 0.1]], 0.0, [[1, 3, 7]])).any()


def test_mean_normalized_by_hand() -> None:
    # mean 1/4: (1 - 1/4) / (1/4) = 3; a group without any reward has no direction
    assert mean_normalized(scores([[1.0, 0, 0, 0], [0, 0, 0, 0]], 1e-300)).tolist() == [[3, -1, -1, -1], [0] * 4]
    with pytest.raises(UserError, match=r"needs rewards of at least 0, one is -0\.5"):
        mean_normalized(scores([[1.0, -0.5]], 1e-6))


@pytest.mark.parametrize("k", [2, 3, 5, 6])
@pytest.mark.parametrize("right", range(7))
def test_pass_at_k_is_the_mean_over_all_choices_of_k(k: int, right: int) -> None:
    """Every k of the group is an attempt, rewarded if one of them is right; a completion's share is the mean of its."""
    rewards = np.array([1.0] * right + [0.0] * (6 - right))
    chosen = list(itertools.combinations(range(6), k))
    attempts = np.array([max(rewards[list(c)]) for c in chosen])
    normed = (attempts - attempts.mean()) / (attempts.std() + 1e-3)
    expected = [np.mean([a for a, c in zip(normed, chosen, strict=True) if i in c]) for i in range(6)]
    expected = [0.0] * 6 if right in (0, 6) else expected
    assert pass_at_k(scores([rewards], 1e-3, k=k))[0].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_pass_at_k_needs_right_or_wrong() -> None:
    with pytest.raises(UserError, match="needs rewards of 0 and 1"):
        pass_at_k(scores([[1.0, 0.1]], 1e-6, k=2))
