"""Paired comparison of two models on the same problems: difference, significance, and detectable difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import binomtest

from grpo_gsm8k.evaluation.statistics.intervals import RESAMPLES, Interval, Method, bootstrap_means, tail_of


class Verdict(StrEnum):
    """Verdict on the candidate."""

    BETTER = "better"
    WORSE = "worse"
    NOISE = "noise"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus baseline. `gained` and `lost` count items where the candidate scores higher and lower.

    `detectable` is the smallest difference that these items could show, None if they cannot show any.
    """

    items: int
    gained: int
    lost: int
    difference: Interval
    p_value: float
    detectable: float | None
    verdict: Verdict


def compare(
    baseline: Mapping[str, float],
    candidate: Mapping[str, float],
    seed: int,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Comparison:
    """Compare scores in 0..1 of the same items, by item id: 0/1, or an item's mean over its samples.

    The p value is McNemar's if every score is 0 or 1, else that of `sign_flip`, its generalization. Raises
    ValueError like `paired_differences`, and on an invalid level.
    """
    differences = paired_differences(baseline, candidate)
    gained, lost = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    binary = all(score in (0, 1) for scores in (baseline, candidate) for score in scores.values())
    interval = paired_bootstrap(differences, seed, resamples, level)
    p_value = mcnemar(gained, lost) if binary else sign_flip(differences, seed, resamples)
    return Comparison(
        items=len(differences),
        gained=gained,
        lost=lost,
        difference=interval,
        p_value=p_value,
        detectable=detectable_difference(len(differences), float(np.mean(differences**2)), alpha=1 - level),
        verdict=verdict(interval, p_value),
    )


def paired_differences(baseline: Mapping[str, float], candidate: Mapping[str, float]) -> NDArray[np.float64]:
    """Candidate minus baseline [items], in the order of sorted ids.

    Raises ValueError if the ids differ (means over different problems are not comparable), if there are none, or if a
    score is outside 0..1.
    """
    if baseline.keys() != candidate.keys():
        unshared = sorted(baseline.keys() ^ candidate.keys())
        raise ValueError(f"the models were graded on different items; {len(unshared)} unshared, first {unshared[0]!r}")
    ids = sorted(baseline)
    scores = np.array([[baseline[i] for i in ids], [candidate[i] for i in ids]], dtype=np.float64)
    if not ids or not bool(np.all((scores >= 0) & (scores <= 1))):
        raise ValueError("scores must lie between 0 and 1, and there must be at least one item")
    return np.asarray(scores[1] - scores[0], dtype=np.float64)


def paired_bootstrap(
    differences: NDArray[np.float64], seed: int, resamples: int = RESAMPLES, level: float = 0.95
) -> Interval:
    """Percentile bootstrap of the mean of paired differences [items] (Efron and Tibshirani 1993, chapter 13).

    Resampling draws items, so the models stay paired. If all differences are equal, so are all resamples. The interval
    then assumes the largest share u of deviating items that is compatible with n equal ones, u = 1 - tail^(1/n)
    (Clopper and Pearson 1934), each with a difference of -1 or 1. Raises ValueError on no items or an invalid level.
    """
    tail = tail_of(level)
    if len(differences) == 0:
        raise ValueError("no items to compare")
    estimate = float(np.mean(differences))
    if differences.min() == differences.max():
        deviating = 1 - tail ** (1 / len(differences))
        low, high = (estimate * (1 - deviating) + edge * deviating for edge in (-1, 1))
        return Interval(estimate, low, high, level, Method.CLOPPER_PEARSON)
    low, high = np.quantile(bootstrap_means(differences, seed, resamples), (tail, 1 - tail))
    return Interval(estimate, float(low), float(high), level, Method.PERCENTILE)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p value of McNemar's exact test that gains and losses are equally likely among discordant pairs.

    Binomial(gained + lost, 1/2), conditional on the discordant pairs (McNemar 1947); 1 without any. Raises ValueError
    on a negative count.
    """
    if min(gained, lost) < 0:
        raise ValueError(f"gained={gained}, lost={lost}: counts cannot be negative")
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def sign_flip(differences: NDArray[np.float64], seed: int, resamples: int = RESAMPLES) -> float:
    """Two-sided p value of the sign-flip test on differences [items] (Fisher 1935): both signs are equally likely.

    For differences of -1, 0 and 1 this is McNemar's exact test, up to Monte Carlo error. Differences of equal size are
    drawn together, because their number of positive signs is binomial. The observed signs count as one draw (Phipson
    and Smyth 2010, arXiv:1603.05766), so the p value is never 0. Raises ValueError on no items.
    """
    if len(differences) == 0:
        raise ValueError("no items to compare")
    rng = np.random.default_rng(seed)
    # Rounding merges sizes that differ only in the last bit, such as 0.3 - 0.2 and 0.1.
    sizes, counts = np.unique(np.abs(differences).round(12), return_counts=True)
    totals = np.zeros(resamples)
    for size, count in zip(sizes, counts, strict=True):
        totals += size * (2.0 * rng.binomial(count, 0.5, size=resamples) - count)
    at_least_as_large = int(np.sum(np.abs(totals) >= abs(float(np.sum(differences))) - 1e-9))
    return (1 + at_least_as_large) / (1 + resamples)


def detectable_difference(items: int, discordance: float, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Smallest true difference that a two-sided McNemar test of this many items finds with the given power.

    Connor (1987, Biometrics 43:207) needs n = (za sqrt(q) + zb sqrt(q - d^2))^2 / d^2 items for a difference d with a
    share q of discordant pairs, za and zb being the normal quantiles of 1 - alpha/2 and the power. Solved for d, this
    is c sqrt(q) with c = (za sqrt(n) + zb sqrt(n + zb^2 - za^2)) / (n + zb^2). As d cannot exceed q, the result is at
    least c^2, where d = q; otherwise the formula would be too optimistic for models that rarely differ. For scores
    between 0 and 1, q is the mean squared difference. None if no difference is detectable, as with fewer than 6 items.
    This is a normal approximation: the exact test needs slightly larger differences.

    Raises ValueError unless items > 0, 0 <= discordance <= 1, 0.5 <= power < 1 and 0 < alpha < 1.
    """
    if not (items > 0 and 0 <= discordance <= 1 and 0.5 <= power < 1 and 0 < alpha < 1):
        raise ValueError(f"items={items}, discordance={discordance}, power={power}, alpha={alpha}: out of range")
    z_alpha, z_beta = float(ndtri(1 - alpha / 2)), float(ndtri(power))
    inner = items + z_beta**2 - z_alpha**2
    if inner < 0 or 2 * 0.5**items > alpha:  # not significant even if all items change in one direction
        return None
    c = (z_alpha * math.sqrt(items) + z_beta * math.sqrt(inner)) / (items + z_beta**2)
    found = c * max(math.sqrt(discordance), c)
    return found if found <= 1 else None


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's (1979) adjusted p values in the given order: the i-th smallest of m times m - i + 1, made monotone.

    Comparing them with alpha bounds the family-wise error rate by alpha under any dependence. Raises ValueError on a
    value outside 0..1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not bool(np.all((values >= 0) & (values <= 1))):
        raise ValueError("p values must lie between 0 and 1")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return tuple(adjusted.tolist())


def verdict(difference: Interval, p_value: float | None = None) -> Verdict:
    """Return NOISE if the interval covers zero or the p value exceeds 1 - level, else BETTER or WORSE.

    The p value, which may be Holm's, guards against few discordant pairs: four gained and none lost give a bootstrap
    interval above zero, but the exact test gives p = 0.125.
    """
    if difference.low <= 0 <= difference.high or (p_value is not None and p_value > 1 - difference.level):
        return Verdict.NOISE
    return Verdict.BETTER if difference.low > 0 else Verdict.WORSE
