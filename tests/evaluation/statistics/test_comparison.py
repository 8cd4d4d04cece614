"""Paired comparisons: worked examples, scipy's results, and the false positive rate."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import scipy.stats

from grpo_gsm8k.evaluation.statistics.comparison import (
    Verdict,
    compare,
    detectable_difference,
    holm,
    mcnemar,
    paired_bootstrap,
    sign_flip,
    verdict,
)
from grpo_gsm8k.evaluation.statistics.intervals import Interval, Method


def models(gained: int, lost: int, both: int, neither: int) -> tuple[dict[str, float], dict[str, float]]:
    pairs = [(0, 1)] * gained + [(1, 0)] * lost + [(1, 1)] * both + [(0, 0)] * neither
    return {str(i): a for i, (a, _) in enumerate(pairs)}, {str(i): b for i, (_, b) in enumerate(pairs)}


def test_mcnemar_worked_example() -> None:
    # 8 gained, 2 lost: 2 P(X >= 8), X ~ Binomial(10, 1/2) = 2 (45 + 10 + 1) / 1024 = 112 / 1024.
    assert mcnemar(8, 2) == mcnemar(2, 8) == pytest.approx(112 / 1024)
    assert mcnemar(5, 5) == mcnemar(0, 0) == 1.0
    assert mcnemar(4, 0) == pytest.approx(2 / 16)
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 3)


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (10, 3), (60, 41), (200, 260)])
def test_mcnemar_is_scipys_binomial_test(gained: int, lost: int) -> None:
    assert mcnemar(gained, lost) == pytest.approx(scipy.stats.binomtest(gained, gained + lost).pvalue)


@pytest.mark.parametrize(("gained", "lost"), [(8, 2), (30, 14), (12, 12)])
def test_sign_flips_of_outcomes_are_mcnemar(gained: int, lost: int) -> None:
    differences = np.array([1.0] * gained + [-1.0] * lost + [0.0] * 50)
    assert sign_flip(differences, seed=0, resamples=100_000) == pytest.approx(mcnemar(gained, lost), abs=0.005)


def test_sign_flips_equal_the_enumeration() -> None:
    differences = np.array([0.25, 0.5, -0.125, 0.75, 0.5, 0.0625])
    totals = [abs(float(np.dot(signs, differences))) for signs in product((-1, 1), repeat=6)]
    exact = np.mean([total >= abs(differences.sum()) for total in totals])
    assert sign_flip(differences, seed=0, resamples=100_000) == pytest.approx(exact, abs=0.005)
    assert sign_flip(np.zeros(5), seed=0) == 1.0


def test_holm_worked_example() -> None:
    # Sorted: 0.005 * 4 = 0.02, 0.01 * 3 = 0.03, 0.03 * 2 = 0.06, and 0.04 * 1 = 0.04, raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.6, 0.5]) == (1.0, 1.0)
    assert holm([]) == ()
    assert holm([0.02]) == (0.02,)
    with pytest.raises(ValueError, match="p values"):
        holm([0.5, float("nan")])


def test_holm_rejects_what_the_step_down_rule_rejects() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.random(8) ** 3
        rejected = set()
        for step, index in enumerate(np.argsort(values)):
            if values[index] > 0.05 / (8 - step):
                break
            rejected.add(int(index))
        assert {i for i, p in enumerate(holm(values.tolist())) if p <= 0.05} == rejected


def test_paired_bootstrap_agrees_with_scipy() -> None:
    differences = np.random.default_rng(1).choice([-1.0, -0.5, 0.0, 0.25, 1.0], size=300)
    reference = scipy.stats.bootstrap(
        (differences,), np.mean, n_resamples=20_000, method="percentile", batch=500, rng=np.random.default_rng(0)
    ).confidence_interval
    found = paired_bootstrap(differences, seed=0, resamples=20_000)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.004)


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, -0.168, 0.168), (1.0, 0.663, 1.0), (-1.0, -1.0, -0.663)])
def test_equal_differences_do_not_claim_certainty(value: float, low: float, high: float) -> None:
    # 20 equal items are compatible with a share of 1 - 0.025^(1/20) = 0.1684 deviating ones; 1 - 2 * 0.1684 = 0.663.
    found = paired_bootstrap(np.full(20, value), seed=0)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.001)
    assert found.method == Method.CLOPPER_PEARSON


def test_detectable_difference_worked_example() -> None:
    # Connor, d = 0.1, q = 0.2: (1.95996 sqrt(0.2) + 0.84162 sqrt(0.19))^2 / 0.01 = (0.87652 + 0.36685)^2 / 0.01 = 154.6
    assert detectable_difference(155, 0.2) == pytest.approx(0.1, abs=2e-4)
    # Never discordant: d = q = c^2, c = (1.95996 sqrt(100) + 0.84162 sqrt(96.867)) / 100.708 = 0.27687.
    assert detectable_difference(100, 0.0) == pytest.approx(0.27687**2, abs=1e-4)
    # Five items that all change in one direction have p = 2 / 32 = 0.0625.
    assert detectable_difference(5, 1.0) is None
    assert detectable_difference(6, 1.0) is not None


@pytest.mark.parametrize(("items", "discordance"), [(50, 0.4), (512, 0.1), (1319, 0.15)])
def test_detectable_difference_solves_connors_formula(items: int, discordance: float) -> None:
    d = detectable_difference(items, discordance)
    assert d is not None
    needed = (1.959964 * math.sqrt(discordance) + 0.841621 * math.sqrt(discordance - d**2)) ** 2 / d**2
    assert needed == pytest.approx(items, rel=1e-5)


@pytest.mark.parametrize("arguments", [(0, 0.1), (10, 1.1), (10, 0.1, 0.3), (10, 0.1, 0.8, 0.0)])
def test_senseless_detectable_differences(arguments: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        detectable_difference(*arguments)


def test_a_detectable_difference_is_found_about_four_times_in_five() -> None:
    items, discordance = 512, 0.2
    d = detectable_difference(items, discordance)
    assert d is not None
    shares = [(discordance + d) / 2, (discordance - d) / 2, 1 - discordance]
    draws = np.random.default_rng(0).multinomial(items, shares, size=1000)
    found = np.mean([mcnemar(int(gained), int(lost)) <= 0.05 for gained, lost, _ in draws])
    assert 0.74 < found < 0.84  # the exact test has slightly less power than the normal approximation


def test_verdicts() -> None:
    better = compare(*models(60, 20, 100, 20), seed=0)
    assert (better.verdict, better.gained, better.lost, better.items) == (Verdict.BETTER, 60, 20, 200)
    assert better.difference.estimate == pytest.approx(0.2)
    assert better.p_value == pytest.approx(scipy.stats.binomtest(60, 80).pvalue)
    assert better.detectable == detectable_difference(200, 80 / 200)
    assert compare(*models(20, 60, 100, 20), seed=0).verdict == Verdict.WORSE
    assert compare(*models(42, 38, 100, 20), seed=0).verdict == Verdict.NOISE
    assert compare(*models(0, 0, 150, 50), seed=0).verdict == Verdict.NOISE


def test_four_gained_and_none_lost_are_noise() -> None:
    found = compare(*models(4, 0, 100, 96), seed=0)
    assert found.difference.low > 0  # the bootstrap alone would say better
    assert (found.p_value, found.verdict) == (pytest.approx(0.125), Verdict.NOISE)


@pytest.mark.parametrize(("low", "high", "expected"), [(-0.1, 0.2, "noise"), (0.0, 0.2, "noise"), (-0.2, 0.0, "noise")])
def test_an_interval_over_zero_is_noise_whatever_p(low: float, high: float, expected: str) -> None:
    interval = Interval((low + high) / 2, low, high, 0.95, Method.PERCENTILE)
    assert verdict(interval) == verdict(interval, 1e-9) == expected


def test_equal_models_are_seldom_told_apart() -> None:
    rng = np.random.default_rng(0)
    told = 0
    for trial in range(300):
        scores = rng.random((2, 200)) < 0.4
        a, b = ({str(i): float(x) for i, x in enumerate(row)} for row in scores)
        told += compare(a, b, seed=trial, resamples=1000).verdict != Verdict.NOISE
    assert told / 300 < 0.08


def test_order_of_items_does_not_matter_but_their_ids_do() -> None:
    a, b = models(10, 5, 20, 20)
    assert compare(a, b, seed=0) == compare(dict(reversed(a.items())), b, seed=0)
    with pytest.raises(ValueError, match="different items; 2 unshared, first '0'"):
        compare({"x" if key == "0" else key: value for key, value in a.items()}, b, seed=0)
    with pytest.raises(ValueError, match="at least one item"):
        compare({}, {}, seed=0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        compare({"a": 2.0}, {"a": 0.0}, seed=0)
    with pytest.raises(ValueError, match="level="):
        compare(a, b, seed=0, level=95)


def test_scores_between_zero_and_one_use_sign_flips() -> None:
    rng = np.random.default_rng(0)
    a = {str(i): float(x) for i, x in enumerate(rng.integers(0, 13, 100) / 16)}
    b = {key: value + 3 / 16 * (int(key) % 3 > 0) for key, value in a.items()}
    found = compare(a, b, seed=0)
    assert (found.gained, found.lost, found.verdict) == (66, 0, Verdict.BETTER)
    assert 0 < found.p_value < 0.001
