"""The order of prompts as a pure function, so that the whole state of the data is one integer."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def prompt_at(position: int, n: int, seed: int) -> tuple[int, int]:
    """Return (epoch, index) of the prompt at a position, counted from 0 over all epochs, of a set of `n` prompts.

    Each epoch is its own seeded permutation: every prompt comes exactly once, and no two epochs share their order.
    """
    if position < 0 or n < 1:
        raise ValueError(f"position={position} must not be negative and n={n} must be at least 1")
    epoch, offset = divmod(position, n)
    return epoch, int(_permutation(n, seed, epoch)[offset])


@lru_cache(maxsize=4)  # a run moves from one epoch to the next; pacing may look into the next one early
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(n)
    order.flags.writeable = False  # it is shared through the cache
    return order
