"""Whether a training curve is like those on record: pure functions.

A curve has one number per update. Two things are compared. The **band** is the 99.9 % prediction interval of a further
seed, at each update, from the curves of all seeds: it holds on every machine, also where the last bits of a number let
another token be sampled. The **residuals** are the relative differences from the recorded curve of the same seed: they
are rounding errors of both signs, until a sampled token differs. A run of residuals that are all on one side is a
drift, however small; one that begins with the first update, where weights and tokens are still the same, is one sooner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

COVERAGE = 0.999
# By chance, ten residuals in a row have one sign once in 512 starts, and nearly never all exceed a thousandth: rounding
# alone makes them 1e-6, and a token that is sampled differently makes them large but of both signs.
ONE_SIDED = 10
# Other gradients make other weights, and after some updates other tokens, whose residuals have both signs: a gradient
# norm 3 % too high was one-sided for 6 updates of GRPO.
ONE_SIDED_AT_FIRST = 3
DRIFT = 1e-3
# Absolute: the gap between engine and learner is some 3e-7 nats, rounding alone, which changes by as much with the
# composition of the engine's batches, and that depends on the load of the machine.
ROUNDING = 1e-6


def outside_band(recorded_SU: np.ndarray, found_U: Sequence[float]) -> list[int]:
    """Return the updates at which a curve leaves the band of S recorded curves, [S, U]; NaN and infinity are outside.

    The interval for one further value of a normal distribution is mean +- t(S - 1) s sqrt(1 + 1/S). The spread at an
    update, from few seeds, is itself uncertain: half of it is that of all updates together.
    """
    found = np.asarray(found_U, dtype=np.float64)
    seeds = len(recorded_SU)
    spread_U = recorded_SU.std(axis=0, ddof=1)
    spread_U = np.sqrt((spread_U**2 + (spread_U**2).mean()) / 2)
    reach_U = stats.t.ppf((1 + COVERAGE) / 2, seeds - 1) * spread_U * np.sqrt(1 + 1 / seeds)
    inside_U = np.abs(found - recorded_SU.mean(axis=0)) <= reach_U
    return [int(u) for u in np.flatnonzero(~inside_U)]


def one_sided_run(recorded_U: Sequence[float], found_U: Sequence[float]) -> tuple[int, int] | None:
    """Return the first and last update of a run of residuals on one side that is a drift, else None.

    Residuals of at most DRIFT, relative to the larger of the two numbers, or ROUNDING end a run.
    """
    recorded, found = np.asarray(recorded_U, dtype=np.float64), np.asarray(found_U, dtype=np.float64)
    scale = np.maximum(np.abs(recorded), np.abs(found))
    residual_U = np.divide(found - recorded, scale, out=np.zeros_like(scale), where=scale > 0)
    counts_U = (np.abs(residual_U) > DRIFT) & (np.abs(found - recorded) > ROUNDING)
    side_U = np.where(counts_U, np.sign(residual_U), 0)
    start = 0
    for u in range(1, len(side_U) + 1):
        if u == len(side_U) or side_U[u] != side_U[start]:
            if side_U[start] and u - start >= (ONE_SIDED if start else ONE_SIDED_AT_FIRST):
                return start, u - 1
            start = u
    return None
