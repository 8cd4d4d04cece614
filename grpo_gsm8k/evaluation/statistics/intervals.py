"""Confidence intervals of a mean over problems, which are the units: samples of one problem are not independent.

`mean_interval` is the one to report. It uses the percentile bootstrap, except where a bootstrap is known to fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincinv, ndtr, ndtri

RESAMPLES = 10_000
FEW = 10.0  # with fewer expected successes or failures, a bootstrap undercovers; see `mean_interval`
CHUNK_CELLS = 2_000_000  # multinomial counts in memory at the same time: 16 MB


class Method(StrEnum):
    """Method of an interval."""

    PERCENTILE = "percentile"
    BCA = "bca"
    CLOPPER_PEARSON = "clopper-pearson"
    MID_P = "mid-p"
    HIERARCHICAL = "hierarchical"


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bounds. `method` is the one used, which may differ from the requested one."""

    estimate: float
    low: float
    high: float
    level: float
    method: Method


def item_means(correct: ArrayLike) -> NDArray[np.float64]:
    """Return the mean per item [items] of scores [items] or [items, samples] in 0..1.

    Raises ValueError for an empty array, another number of dimensions, or a value outside 0..1 or NaN.
    """
    scores = np.asarray(correct, dtype=np.float64)
    if scores.ndim not in (1, 2) or scores.size == 0:
        raise ValueError(f"scores of shape {scores.shape}: expected [items] or [items, samples], not empty")
    if not bool(np.all((scores >= 0) & (scores <= 1))):
        raise ValueError("every score must lie between 0 and 1")
    return scores if scores.ndim == 1 else scores.mean(axis=1)


def bootstrap_means(values: NDArray[np.float64], seed: int, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """Means [resamples] of resamples of values [items], drawn with replacement.

    A resample is determined by the counts of the distinct values, which are exactly multinomial: with 16 samples per
    item there are 17 distinct values, for any number of items. The result does not depend on the order of the items.
    Raises ValueError on no values or no resamples.
    """
    if values.size == 0 or resamples < 1:
        raise ValueError(f"{values.size} values, {resamples} resamples: both must be positive")
    distinct, counts = np.unique(values, return_counts=True)
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK_CELLS // len(distinct))
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    draws = [rng.multinomial(values.size, counts / values.size, size=size) @ distinct for size in sizes]
    return np.concatenate(draws) / values.size


def percentile(correct: ArrayLike, seed: int, resamples: int = RESAMPLES, level: float = 0.95) -> Interval:
    """Percentile bootstrap over items (Efron and Tibshirani 1993, chapter 13): quantiles of the resampled means.

    `correct` is [items] or [items, samples]. If all items agree, so would all resamples; the interval is then that of
    `unanimous`. Raises ValueError like `item_means`, and on an invalid level.
    """
    tail = tail_of(level)
    values = item_means(correct)
    if values.min() == values.max():
        return unanimous(values, level)
    low, high = np.quantile(bootstrap_means(values, seed, resamples), (tail, 1 - tail))
    return Interval(float(values.mean()), float(low), float(high), level, Method.PERCENTILE)


def bca(correct: ArrayLike, seed: int, resamples: int = RESAMPLES, level: float = 0.95) -> Interval:
    """Bias-corrected and accelerated bootstrap over items (Efron 1987; Efron and Tibshirani 1993, section 14.3).

    The quantiles are taken at Phi(z0 + (z0 + z) / (1 - a (z0 + z))), z the normal quantile of each tail. z0 comes from
    the share of resamples below the estimate, counting ties half, because means of 0 and 1 tie often. a is the
    jackknife's skewness, for a mean sum(d^3) / (6 sum(d^2)^1.5) of the deviations d. Same arguments and errors as
    `percentile`.
    """
    tail = tail_of(level)
    values = item_means(correct)
    if values.min() == values.max():
        return unanimous(values, level)
    estimate = float(values.mean())
    means = np.sort(bootstrap_means(values, seed, resamples))
    near = 1e-12  # rounding of equal means that were summed in another order
    below, up_to = np.searchsorted(means, (estimate - near, estimate + near))
    share = np.clip((below + up_to) / (2 * resamples), 0.5 / resamples, 1 - 0.5 / resamples)
    deviations = values - estimate
    skew = np.sum(deviations**3) / (6 * np.sum(deviations**2) ** 1.5)
    shifted = ndtri(share) + ndtri(np.array([tail, 1 - tail]))
    low, high = np.quantile(means, ndtr(ndtri(share) + shifted / (1 - skew * shifted)))
    return Interval(estimate, float(low), float(high), level, Method.BCA)


def mean_interval(correct: ArrayLike, seed: int, resamples: int = RESAMPLES, level: float = 0.95) -> Interval:
    """The default interval: percentile bootstrap, or the mid-p interval below 10 expected successes or failures.

    With 50 items and an accuracy of 0.05 both bootstraps cover 98.8 % instead of 95 % (many resamples have no success);
    with 256 items and 0.02 the percentile bootstrap covers 88 %. For 0/1 items, rates of 0.02-0.98 and 20-1,319 items,
    this combination covers 93.9-99.3 %. Same arguments and errors as `percentile`.
    """
    tail_of(level)
    values = item_means(correct)
    if values.min() == values.max():
        return unanimous(values, level)
    samples = np.shape(correct)[1] if np.ndim(correct) == 2 else 1
    trials = effective_trials(values, samples)
    successes = trials * float(values.mean())
    if min(successes, trials - successes) < FEW:
        return mid_p(successes, trials, level)
    return percentile(correct, seed, resamples, level)


def effective_trials(values: NDArray[np.float64], samples: int) -> float:
    """Number of independent 0/1 trials that would estimate the mean of values [items] with the same precision.

    items * m (1 - m) / variance of the values (Korn and Graubard 1998): the number of items if each value is 0 or 1,
    more if values lie in between, at most the number of samples. Equal values count as one trial each.
    """
    mean, variance = float(values.mean()), float(values.var())
    ratio = 1.0 if variance == 0 else mean * (1 - mean) / variance
    return len(values) * min(float(samples), max(1.0, ratio))


def unanimous(values: NDArray[np.float64], level: float = 0.95) -> Interval:
    """Clopper and Pearson's interval for values [items] that are all equal, with each item counted as one trial.

    This also holds for equal values between 0 and 1, where it is conservative: 0/1 trials have the largest variance.
    """
    return clopper_pearson(float(values[0]) * len(values), float(len(values)), level)


def clopper_pearson(successes: float, trials: float, level: float = 0.95) -> Interval:
    """Exact interval of a binomial rate (Clopper and Pearson 1934), as beta quantiles, so counts may be fractional.

    Raises ValueError unless 0 <= successes <= trials, trials > 0 and 0 < level < 1.
    """
    tail = _checked_tail(successes, trials, level)
    failures = trials - successes
    low = 0.0 if successes <= 0 else float(betaincinv(successes, failures + 1, tail))
    high = 1.0 if failures <= 0 else float(betaincinv(successes + 1, failures, 1 - tail))
    return Interval(successes / trials, low, high, level, Method.CLOPPER_PEARSON)


def mid_p(successes: float, trials: float, level: float = 0.95) -> Interval:
    """Interval of the rates that a two-sided mid-p binomial test does not reject (Berry and Armitage 1995).

    The lower bound solves P(X > k) + P(X = k) / 2 = (1 - level) / 2; the upper bound solves the same equation for
    failures. Counts may be fractional, such as effective trials. Same errors as `clopper_pearson`.
    """
    tail = _checked_tail(successes, trials, level)
    low = _mid_p_bound(successes, trials, tail)
    high = 1 - _mid_p_bound(trials - successes, trials, tail)
    return Interval(successes / trials, low, high, level, Method.MID_P)


def tail_of(level: float) -> float:
    """Return the probability of each tail. Raises ValueError on a level outside 0..1."""
    if not 0 < level < 1:
        raise ValueError(f"level={level} must lie between 0 and 1")
    return (1 - level) / 2


def _checked_tail(successes: float, trials: float, level: float) -> float:
    if not (trials > 0 and 0 <= successes <= trials):
        raise ValueError(f"{successes} successes of {trials} trials: need 0 <= successes <= trials and trials > 0")
    return tail_of(level)


def _mid_p_bound(successes: float, trials: float, tail: float) -> float:
    """Find the rate whose upper mid-p tail is `tail` by bisection; the tail increases with the rate."""
    if successes <= 0:
        return 0.0
    low, high, failures = 0.0, 1.0, trials - successes
    for _ in range(60):
        rate = (low + high) / 2
        at_least = betainc(successes, failures + 1, rate)
        more = betainc(successes + 1, failures, rate) if failures > 0 else 0.0
        low, high = (rate, high) if (at_least + more) / 2 < tail else (low, rate)
    return (low + high) / 2
