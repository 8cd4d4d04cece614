"""Calibration: how well a model's confidence predicts its correctness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata


@dataclass(frozen=True, slots=True)
class Bin:
    """Completions of similar confidence: lowest and highest confidence, count, mean confidence, accuracy."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def confidence(logprobs: Sequence[float]) -> float:
    """Geometric mean of a completion's token probabilities: exp(mean log-probability).

    Raises ValueError on an empty list, NaN, or a log-probability above 0 by more than rounding; -inf gives 0.
    """
    if not logprobs or not all(value <= 1e-3 for value in logprobs):
        raise ValueError("log-probabilities must be a non-empty list of numbers <= 0")
    return min(1.0, math.exp(math.fsum(logprobs) / len(logprobs)))


def reliability_bins(confidences: ArrayLike, correct: ArrayLike, bins: int = 10) -> tuple[Bin, ...]:
    """Sort completions [n] by confidence into bins of equal count (Nguyen and O'Connor 2015, arXiv:1508.05154).

    Equal confidences share the bin of their middle rank, so that the order of the input does not matter. Counts may
    therefore differ, and empty bins are not returned. Raises ValueError if bins < 1 or on invalid input (see `auroc`).
    """
    scores, right = _checked(confidences, correct)
    if bins < 1:
        raise ValueError(f"bins={bins} must be at least 1")
    places = ((rankdata(scores) - 0.5) * bins / len(scores)).astype(int)
    found = []
    for place in np.unique(places):
        inside, hits = scores[places == place], right[places == place]
        mean = float(inside.mean())
        found.append(Bin(float(inside.min()), float(inside.max()), len(inside), mean, float(hits.mean())))
    return tuple(found)


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Mean of |accuracy - confidence| over bins, weighted by count.

    Naeini et al. (2015), Guo et al. (2017, arXiv:1706.04599). Biased upward if bins hold few completions. Raises
    ValueError on an empty list.
    """
    if not bins:
        raise ValueError("no bins")
    return math.fsum(b.count * abs(b.accuracy - b.confidence) for b in bins) / sum(b.count for b in bins)


def auroc(confidences: ArrayLike, correct: ArrayLike) -> float | None:
    """Probability that a right completion is more confident than a wrong one, ties half; None if either is missing.

    (R - r (r + 1) / 2) / (r w), R the sum of the mid-ranks of the r right ones among them and the w wrong ones (Hanley
    and McNeil 1982). `confidences` and `correct` are [n]. Raises ValueError if they are empty, differ in length, or
    a confidence is outside 0..1 or NaN.
    """
    scores, right = _checked(confidences, correct)
    rights = int(right.sum())
    wrongs = len(right) - rights
    if rights == 0 or wrongs == 0:
        return None
    rank_sum = float(rankdata(scores)[right].sum())
    return (rank_sum - rights * (rights + 1) / 2) / (rights * wrongs)


def _checked(confidences: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores, right = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=np.bool_)
    if scores.ndim != 1 or scores.shape != right.shape or scores.size == 0:
        raise ValueError(f"confidences of shape {scores.shape} for verdicts of shape {right.shape}")
    if not bool(np.all((scores >= 0) & (scores <= 1))):
        raise ValueError("every confidence must lie between 0 and 1")
    return scores, right
