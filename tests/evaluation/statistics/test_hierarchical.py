"""Intervals over seeds and items against plain loops, closed forms, and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from grpo_gsm8k.evaluation.statistics import comparison
from grpo_gsm8k.evaluation.statistics.hierarchical import (
    Side,
    bootstrap_spread,
    compare_methods,
    method_interval,
    resampled_contrasts,
    t_quantile,
)
from grpo_gsm8k.evaluation.statistics.intervals import Method, mean_interval


def simulated(
    rng: np.random.Generator, seeds: int, items: int, by_seed: float, by_item: float, base: float = 0.5
) -> np.ndarray:
    """Right and wrong answers [seeds, items] with effects of seed and item on the log-odds."""
    logits = base + by_seed * rng.normal(size=(seeds, 1)) + by_item * rng.normal(size=(1, items))
    return (rng.random((seeds, items)) < 1 / (1 + np.exp(-logits))).astype(float)


def plain_loop(scores: np.ndarray, resamples: int) -> np.ndarray:
    """Draw S - 1 seeds, then items for all of them, one index at a time."""
    rng = np.random.default_rng(99)
    seeds, items = scores.shape
    found = []
    for _ in range(resamples):
        rows = [rng.integers(seeds) for _ in range(seeds - 1)]
        columns = rng.integers(items, size=items)
        found.append(np.mean([scores[row, column] for row in rows for column in columns]))
    return np.array(found)


def test_resamples_are_distributed_as_those_of_a_plain_loop() -> None:
    scores = simulated(np.random.default_rng(3), 4, 25, 0.8, 1.5)
    scores[0] *= 0.5  # more than two values
    fast, slow = resampled_contrasts([Side(scores)], 0, 4000), plain_loop(scores, 2000)
    assert fast.mean() == pytest.approx(slow.mean(), abs=0.01)
    assert fast.std() == pytest.approx(slow.std(), rel=0.06)
    assert stats.ks_2samp(fast.round(9), slow.round(9)).pvalue > 0.01


def test_the_variance_is_that_of_the_crossed_random_effects_model() -> None:
    """Analysis of variance by sums of squares (Searle 1971): (MS seeds + MS items - MS residual) / (S I)."""
    scores = simulated(np.random.default_rng(5), 5, 60, 0.7, 1.5)
    seeds, items = scores.shape
    grand = sum(map(sum, scores)) / scores.size
    rows = [sum(row) / items for row in scores]
    columns = [sum(column) / seeds for column in scores.T]
    ms_rows = items * sum((row - grand) ** 2 for row in rows) / (seeds - 1)
    ms_columns = seeds * sum((column - grand) ** 2 for column in columns) / (items - 1)
    left = sum((scores[i, j] - rows[i] - columns[j] + grand) ** 2 for i in range(seeds) for j in range(items))
    ms_left = left / ((seeds - 1) * (items - 1))
    expected = (ms_rows + ms_columns - ms_left) / scores.size
    found = bootstrap_spread([Side(scores)], 0, 40_000)
    assert found.variance == pytest.approx(expected, rel=0.04)
    dof = expected**2 / ((ms_rows / scores.size) ** 2 / (seeds - 1) + (ms_columns / scores.size) ** 2 / (items - 1))
    assert found.dof == pytest.approx(dof, rel=0.1)


def test_seeds_that_differ_much_give_the_t_interval_of_their_means() -> None:
    """With items that agree, what is left is Student's interval of three numbers."""
    scores = np.repeat([[0.2], [0.5], [0.6]], 400, axis=1)
    means = scores.mean(axis=1)
    error = means.std(ddof=1) / math.sqrt(3)
    expected = stats.t.interval(0.95, 2, means.mean(), error)
    found = bootstrap_spread([Side(scores)], 0, 20_000)
    half = t_quantile(0.975, found.dof) * math.sqrt(found.variance)
    assert found.dof == pytest.approx(2, abs=0.01)
    assert half == pytest.approx((expected[1] - expected[0]) / 2, rel=0.02)
    assert t_quantile(0.975, math.inf) == pytest.approx(1.959964)


def test_equal_seeds_give_nearly_the_interval_over_items() -> None:
    one = simulated(np.random.default_rng(7), 1, 400, 0, 1)
    found, items = method_interval(np.repeat(one, 3, axis=0), 0), mean_interval(one[0], 0)
    assert (found.low, found.high) == pytest.approx((items.low, items.high), abs=0.004)
    assert found.method is Method.HIERARCHICAL
    assert method_interval(one, 0) == items  # one seed: over the items only


def test_edges() -> None:
    right = method_interval(np.ones((3, 20)), 0)
    assert (right.estimate, right.high, right.method) == (1, 1, Method.CLOPPER_PEARSON)
    few = np.zeros((3, 100))
    few[:, :2] = few[0, 2] = 1
    found = method_interval(few, 0)
    assert found.method is Method.MID_P
    assert 0 < found.low < found.estimate < found.high < 0.12
    for wrong in (np.ones(3), np.full((2, 3), 2.0), np.full((2, 3), math.nan), np.ones((2, 1))):
        with pytest.raises(ValueError, match="score"):
            method_interval(wrong, 0)
    with pytest.raises(ValueError, match="same items"):
        compare_methods(np.ones((2, 3)), np.ones((2, 4)), False, 0)


@pytest.mark.parametrize(
    ("seeds", "by_seed", "by_item"),
    [(3, 0.0, 1.5), (3, 0.15, 1.5), (3, 0.5, 1.5), (8, 0.3, 1.0)],
    ids=["no seed effect", "small", "large", "eight seeds"],
)
def test_intervals_cover_95_percent(seeds: int, by_seed: float, by_item: float) -> None:
    rng = np.random.default_rng(11)
    effects = rng.normal(size=400_000) * math.hypot(by_seed, by_item)
    truth = float(np.mean(1 / (1 + np.exp(-0.5 - effects))))
    runs = 300
    found = [method_interval(simulated(rng, seeds, 150, by_seed, by_item), at, 400) for at in range(runs)]
    covered = sum(one.low <= truth <= one.high for one in found) / runs
    assert (
        0.92 <= covered <= 0.99
    )  # 95 % give or take 2.4 standard errors, and slightly conservative without a seed effect


def test_the_test_between_equal_methods_is_rarely_significant() -> None:
    """Both methods are drawn from one population, paired by item, and by seed or not."""
    rng = np.random.default_rng(13)
    runs, rejected = 200, {True: 0, False: 0}
    for at in range(runs):
        both = simulated(rng, 6, 150, 0.3, 1.5)
        for paired in rejected:
            rejected[paired] += compare_methods(both[:3], both[3:], paired, at, 300).p_value < 0.05
    assert all(count / runs <= 0.09 for count in rejected.values()), rejected
    assert rejected[False] / runs >= 0.005  # not absurdly conservative


def test_a_real_difference_is_found_and_the_interval_agrees_with_the_p_value() -> None:
    rng = np.random.default_rng(17)
    ease = rng.random(300)
    old, new = ((rng.random((3, 300)) < ease + shift).astype(float) for shift in (0.0, 0.15))
    found = compare_methods(old, new, True, 0)
    assert found.p_value < 0.001
    assert found.difference.low > 0
    assert found.difference.estimate == pytest.approx(new.mean() - old.mean())
    assert found.over_seeds
    assert found.detectable is not None
    unpaired = compare_methods(old, new[[2, 0, 1]], False, 0)
    assert unpaired.difference.estimate == pytest.approx(found.difference.estimate)
    swapped = compare_methods(new, old, True, 0)
    assert swapped.difference.low == pytest.approx(-found.difference.high, abs=0.004)


def test_few_discordant_items_are_not_significant_whatever_the_seeds_say() -> None:
    old = np.zeros((3, 50))
    new = old.copy()
    new[:, :4] = 1  # four items gained by all seeds: exact p over the items is 0.125
    found = compare_methods(old, new, True, 0)
    assert found.p_value >= 0.11


def test_one_seed_is_compared_over_the_items_only() -> None:
    rng = np.random.default_rng(19)
    old, new = (simulated(rng, 1, 100, 0, 1) for _ in range(2))
    found = compare_methods(old, new, True, 0)
    names = [str(at) for at in range(100)]
    plain = comparison.compare(dict(zip(names, old[0], strict=True)), dict(zip(names, new[0], strict=True)), 0)
    assert (found.over_seeds, found.p_value, found.difference) == (False, plain.p_value, plain.difference)
    mixed = compare_methods(old, np.repeat(new, 3, axis=0), False, 0)
    assert not mixed.over_seeds
    assert compare_methods(old, old, True, 0).p_value == 1
