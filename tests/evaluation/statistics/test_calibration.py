"""Calibration: worked examples, scipy's results, and known distributions."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats

from grpo_gsm8k.evaluation.statistics.calibration import (
    Bin,
    auroc,
    confidence,
    expected_calibration_error,
    reliability_bins,
)


def test_confidence_is_the_geometric_mean() -> None:
    assert confidence([math.log(0.5), math.log(0.125)]) == pytest.approx(0.25)
    assert confidence([0.0]) == 1.0
    assert confidence([1e-7]) == 1.0  # rounding above 0
    assert confidence([-math.inf, -1.0]) == 0.0
    for unfit in ([], [0.5], [float("nan")]):
        with pytest.raises(ValueError, match="log-probabilities"):
            confidence(unfit)


def test_bins_and_error_worked_example() -> None:
    bins = reliability_bins([0.9, 0.2, 0.7, 0.4], [True, False, False, True], bins=2)
    assert [(b.low, b.high, b.count, b.accuracy) for b in bins] == [(0.2, 0.4, 2, 0.5), (0.7, 0.9, 2, 0.5)]
    assert [b.confidence for b in bins] == pytest.approx([0.3, 0.8])
    # |0.5 - 0.3| / 2 + |0.5 - 0.8| / 2
    assert expected_calibration_error(bins) == pytest.approx(0.25)
    uneven = (Bin(0, 1, 3, 0.5, 0.9), Bin(0, 1, 1, 0.2, 0.2))
    assert expected_calibration_error(uneven) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="no bins"):
        expected_calibration_error([])


@pytest.mark.parametrize(("n", "bins"), [(100, 10), (103, 10), (7, 10), (1, 3)])
def test_counts_are_equal_up_to_one(n: int, bins: int) -> None:
    found = reliability_bins(np.random.default_rng(n).random(n), np.ones(n), bins)
    counts = [b.count for b in found]
    assert sum(counts) == n
    assert len(found) == min(n, bins)
    assert max(counts) - min(counts) <= 1
    assert all(a.high < b.low for a, b in pairwise(found))


def test_ties_share_a_bin_whatever_their_order() -> None:
    scores, right = np.array([0.5] * 8 + [0.9] * 2), np.array([True] * 4 + [False] * 4 + [True, False])
    found = reliability_bins(scores, right, bins=5)
    assert [(b.count, b.accuracy) for b in found] == [(8, 0.5), (2, 0.5)]
    order = np.random.default_rng(0).permutation(10)
    assert reliability_bins(scores[order], right[order], bins=5) == found


def test_calibrated_confidences_have_a_small_error() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(20_000)
    right = rng.random(20_000) < scores
    assert expected_calibration_error(reliability_bins(scores, right)) < 0.02
    assert expected_calibration_error(reliability_bins(scores**0.25, right)) > 0.2


def test_auroc_worked_example() -> None:
    # Right 0.8, 0.5 against wrong 0.6, 0.5, 0.1: 3 + (0 + 0.5 + 1) = 4.5 of 6.
    assert auroc([0.8, 0.5, 0.6, 0.5, 0.1], [1, 1, 0, 0, 0]) == pytest.approx(0.75)
    assert auroc([0.5, 0.5], [True, False]) == 0.5
    assert auroc([0.1, 0.9], [True, True]) is None
    assert auroc([0.1, 0.9], [False, False]) is None


def test_auroc_is_the_mann_whitney_statistic() -> None:
    rng = np.random.default_rng(1)
    scores, right = rng.integers(0, 20, 300) / 20, rng.random(300) < 0.4
    statistic = scipy.stats.mannwhitneyu(scores[right], scores[~right]).statistic
    assert auroc(scores, right) == pytest.approx(statistic / (right.sum() * (~right).sum()))


@pytest.mark.parametrize(
    ("scores", "right"), [([], []), ([0.5], [True, False]), ([1.5], [True]), ([float("nan")], [1])]
)
def test_unfit_input(scores: list[float], right: list[bool]) -> None:
    for function in (auroc, reliability_bins):
        with pytest.raises(ValueError, match="confidence"):
            function(scores, right)
    with pytest.raises(ValueError, match="bins=0"):
        reliability_bins([0.5], [True], bins=0)
