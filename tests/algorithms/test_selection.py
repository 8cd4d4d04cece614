"""Choices among the tokens of a step, against loops over sorted lists."""

from __future__ import annotations

import numpy as np
import pytest

from grpo_gsm8k.algorithms.selection import covariances, largest, random_within, second_moment_outliers


def test_second_moment_by_hand() -> None:
    # Tokens where PPO would clip: squares 0.01, 0.04, 0.25, 0.09; the others have larger ones, which do not count.
    log_ratio = np.array([0.1, 0.2, 0.5, -0.3, -2.0, 3.0, 0.0])
    advantages = np.array([1.0, 2.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    # mean of all four 0.0975; without 0.25: 0.14 / 3 = 0.0467; without 0.09 too: 0.025
    assert not second_moment_outliers(log_ratio, advantages, 0.0976).any()
    assert np.flatnonzero(second_moment_outliers(log_ratio, advantages, 0.05)).tolist() == [2]
    assert np.flatnonzero(second_moment_outliers(log_ratio, advantages, 0.04)).tolist() == [2, 3]
    assert np.flatnonzero(second_moment_outliers(log_ratio, advantages, 0.001)).tolist() == [0, 1, 2, 3]
    assert not second_moment_outliers(np.empty(0), np.empty(0), 0.04).any()


@pytest.mark.parametrize("scale", [0.0, 0.01, 0.3, 2.0])
def test_second_moment_as_the_algorithm_is_written(scale: float) -> None:
    rng = np.random.default_rng(0)
    log_ratio, advantages = scale * rng.normal(size=200), rng.normal(size=200)
    remaining = [i for i in range(200) if log_ratio[i] * advantages[i] > 0]
    while remaining and np.mean([log_ratio[i] ** 2 for i in remaining]) > 0.04:
        remaining.remove(max(remaining, key=lambda i: abs(log_ratio[i])))
    removed = {i for i in range(200) if log_ratio[i] * advantages[i] > 0} - set(remaining)
    assert set(np.flatnonzero(second_moment_outliers(log_ratio, advantages, 0.04)).tolist()) == removed


def test_covariances_sum_to_the_covariance() -> None:
    rng = np.random.default_rng(1)
    logprobs, advantages = rng.normal(size=50), rng.normal(size=50)
    assert covariances(logprobs, advantages).mean() == pytest.approx(np.cov(logprobs, advantages, ddof=0)[0, 1])


def test_random_within_draws_from_the_allowed() -> None:
    values, allowed = np.arange(100.0), np.arange(100) % 2 == 0
    drawn = [np.flatnonzero(random_within(values, allowed, 9.0, 51.0, 0.05, (seed,))) for seed in range(300)]
    assert all(len(found) == 5 for found in drawn)
    assert set(np.concatenate(drawn).tolist()) == set(range(10, 51, 2))  # 9 < even numbers < 51, all of them some time
    assert np.array_equal(drawn[7], np.flatnonzero(random_within(values, allowed, 9.0, 51.0, 0.05, (7,))))


@pytest.mark.parametrize(("fraction", "low", "number"), [(1e-9, 0.0, 1), (0.5, 96.5, 3), (0.5, 200.0, 0)])
def test_random_within_marks_one_at_least_and_what_there_is_at_most(fraction: float, low: float, number: int) -> None:
    assert random_within(np.arange(100.0), np.ones(100, bool), low, 300.0, fraction, (0,)).sum() == number


def test_largest() -> None:
    values = np.array([3.0, -9.0, 5.0, 5.0, 1.0])
    assert largest(values, 0.4).tolist() == [False, False, True, True, False]
    assert largest(values, 0.01).tolist() == [False, False, True, False, False]
    assert largest(np.empty(0), 0.5).tolist() == []
