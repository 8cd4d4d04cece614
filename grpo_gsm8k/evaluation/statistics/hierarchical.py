"""Intervals and tests over seeds and items, for methods whose runs with several seeds answered the same items.

Scores are [seeds, items] in 0..1. Seeds and items are both samples: another seed gives another model, other items give
another accuracy. All seeds of a method share the items, so a resample draws the seeds, and then one set of items for
all of them (the pigeonhole bootstrap, Owen 2007, doi:10.1214/07-AOAS122). Drawing new items for each seed would
treat an item that is hard for every seed as several independent ones, and give intervals that are too short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit

from grpo_gsm8k.evaluation.statistics import comparison
from grpo_gsm8k.evaluation.statistics.intervals import (
    CHUNK_CELLS,
    FEW,
    RESAMPLES,
    Interval,
    Method,
    mean_interval,
    mid_p,
    tail_of,
    unanimous,
)

Scores = NDArray[np.float64]
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Side:
    """Scores [seeds, items] of one term of a contrast, with its sign. Sides have their own seeds, and share items."""

    scores: Scores
    sign: float = 1.0


@dataclass(frozen=True, slots=True)
class Spread:
    """An estimate with its variance over seeds and items, and the degrees of freedom of that variance."""

    estimate: float
    variance: float
    dof: float


@dataclass(frozen=True, slots=True)
class MethodDifference:
    """Candidate minus baseline over seeds and items. `over_seeds`: false if the interval covers the items only."""

    difference: Interval
    p_value: float
    detectable: float | None
    paired_seeds: bool
    over_seeds: bool


def method_interval(scores: Scores, seed: int, resamples: int = RESAMPLES, level: float = 0.95) -> Interval:
    """Interval of a method's accuracy over seeds and items; over the items only with one seed.

    The estimate plus or minus t standard errors of the hierarchical bootstrap, see `bootstrap_spread`. With fewer than
    10 effective successes or failures, the mid-p interval of as many trials as have this variance (Korn and Graubard
    1998). Quantiles of the resamples are not used: with three seeds that differ they cover 85 % instead of 95 %,
    because resamples of three seeds vary too little. Raises ValueError on scores that are not [seeds, items] in 0..1.
    """
    checked = _checked(scores)
    if checked.shape[0] == 1:
        return mean_interval(checked[0], seed, resamples, level)
    found = bootstrap_spread([Side(checked)], seed, resamples)
    if found.variance == 0:
        return unanimous(checked.mean(axis=0), level)
    quantile = t_quantile(1 - tail_of(level), found.dof)
    mean = found.estimate
    trials = max(1.0, mean * (1 - mean) / found.variance * (float(ndtri(1 - tail_of(level))) / quantile) ** 2)
    if trials * min(mean, 1 - mean) < FEW:
        return mid_p(trials * mean, trials, level)
    half = quantile * math.sqrt(found.variance)
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half), level, Method.HIERARCHICAL)


def compare_methods(
    baseline: Scores, candidate: Scores, paired_seeds: bool, seed: int, resamples: int = RESAMPLES, level: float = 0.95
) -> MethodDifference:
    """Compare two methods on the same items, given in the same order.

    With `paired_seeds`, row k of both has the same seed, and the differences are resampled by seed and item; else the
    seeds of the methods are drawn separately. The p value is that of the t test with the bootstrap's standard error,
    but at least that of the sign-flip test over the items alone, because more seeds cannot make few discordant items
    significant. If a method has one seed, the result is that of `comparison.compare` for the means over the seeds.
    Raises ValueError on other shapes and values.
    """
    old, new = _checked(baseline), _checked(candidate)
    if old.shape[1] != new.shape[1] or (paired_seeds and old.shape != new.shape):
        raise ValueError(f"scores {old.shape} and {new.shape}: need the same items, and for pairs the same seeds")
    sides = [Side(new - old)] if paired_seeds else [Side(new), Side(old, -1.0)]
    over_seeds = min(len(old), len(new)) > 1
    found = bootstrap_spread(sides, seed, resamples) if over_seeds else None
    if found is None or found.variance == 0:
        return _over_items(old, new, paired_seeds, over_seeds, seed, resamples, level)
    error = math.sqrt(found.variance)
    half = t_quantile(1 - tail_of(level), found.dof) * error
    p_t = 2 * float(stdtr(found.dof, -abs(found.estimate) / error))
    p_items = comparison.sign_flip(new.mean(axis=0) - old.mean(axis=0), seed, resamples)
    ends = (max(-1.0, found.estimate - half), min(1.0, found.estimate + half))
    difference = Interval(found.estimate, *ends, level, Method.HIERARCHICAL)
    smallest = half + t_quantile(POWER, found.dof) * error
    return MethodDifference(
        difference, max(p_t, p_items), smallest if smallest <= 1 else None, paired_seeds, over_seeds
    )


def bootstrap_spread(sides: Sequence[Side], seed: int, resamples: int = RESAMPLES) -> Spread:
    """Variance of a contrast of means over seeds and items, from the hierarchical bootstrap.

    A resample draws one seed fewer than there are, which makes the variance over seeds unbiased (Rao and Wu 1988). What
    is left of a score after its seed's and its item's mean is counted three times instead of once (Owen 2007), so its
    share is removed twice, though no more than is there. The degrees of freedom are Satterthwaite's (1946): few if the
    seeds differ, many if they agree. Raises ValueError with fewer than two seeds or items.
    """
    draws = resampled_contrasts(sides, seed, resamples)
    items = sides[0].scores.shape[1]
    estimate = math.fsum(side.sign * float(side.scores.mean()) for side in sides)
    noise = [_residual(side.scores) for side in sides]
    by_seed = [float(side.scores.mean(axis=1).var(ddof=1)) / len(side.scores) for side in sides]
    by_item = float(np.sum([side.sign * side.scores.mean(axis=0) for side in sides], axis=0).var(ddof=1)) / items
    excess = math.fsum(map(min, noise, by_seed)) + min(math.fsum(noise), by_item)
    # Not below the exact values of the parts, which Monte Carlo error could otherwise cancel.
    variance = max(float(draws.var()) - excess, *by_seed, by_item, math.fsum(noise))
    if variance < 1e-18:  # the rounding of equal scores
        return Spread(estimate, 0.0, math.inf)
    squares = [part**2 / (len(side.scores) - 1) for part, side in zip(by_seed, sides, strict=True)]
    dof = variance**2 / (math.fsum(squares) + by_item**2 / (items - 1)) if any((*by_seed, by_item)) else math.inf
    return Spread(estimate, variance, dof)


def resampled_contrasts(sides: Sequence[Side], seed: int, resamples: int = RESAMPLES) -> Scores:
    """Contrasts [resamples]: of S seeds of each side S - 1 are drawn, then all items, the same for every seed and side.

    A resample of items is determined by how often each distinct column of scores occurs, which is multinomial. Raises
    ValueError with fewer than two seeds or items, or if the sides have different items.
    """
    shapes = [side.scores.shape for side in sides]
    if len({items for _, items in shapes}) != 1 or min(min(shape) for shape in shapes) < 2:
        raise ValueError(f"scores of shapes {shapes}: need two seeds, and two items that all sides share")
    items = shapes[0][1]
    stacked = np.concatenate([side.scores for side in sides])
    columns, counts = np.unique(stacked, axis=1, return_counts=True)
    starts = np.cumsum([0, *(seeds for seeds, _ in shapes)])
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK_CELLS // columns.shape[1])
    found = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        total = np.zeros((size, columns.shape[1]))
        for side, first, (seeds, _) in zip(sides, starts, shapes, strict=False):
            weights = rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), size=size) / (seeds - 1)
            total += side.sign * (weights @ columns[first : first + seeds])
        found.append(np.sum(total * rng.multinomial(items, counts / items, size=size), axis=1) / items)
    return np.concatenate(found)


def t_quantile(probability: float, dof: float) -> float:
    """Quantile of Student's t; of the normal distribution for infinite degrees of freedom."""
    return float(ndtri(probability)) if math.isinf(dof) else float(stdtrit(dof, probability))


def _residual(scores: Scores) -> float:
    """Variance of the mean due to what neither the seed nor the item explains: the residual mean square / (S I)."""
    seeds, items = scores.shape
    left = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
    return float(np.sum(left**2) / ((seeds - 1) * (items - 1)) / (seeds * items))


def _over_items(
    old: Scores, new: Scores, paired_seeds: bool, over_seeds: bool, seed: int, resamples: int, level: float
) -> MethodDifference:
    names = [str(at) for at in range(old.shape[1])]
    before, after = (dict(zip(names, side.mean(axis=0).tolist(), strict=True)) for side in (old, new))
    found = comparison.compare(before, after, seed, resamples, level)
    return MethodDifference(found.difference, found.p_value, found.detectable, paired_seeds, over_seeds)


def _checked(scores: Scores) -> Scores:
    found = np.asarray(scores, dtype=np.float64)
    if found.ndim != 2 or found.shape[0] < 1 or found.shape[1] < 2:
        raise ValueError(f"scores of shape {found.shape}: expected [seeds, items] with at least two items")
    if not bool(np.all((found >= 0) & (found <= 1))):
        raise ValueError("every score must lie between 0 and 1")
    return found
