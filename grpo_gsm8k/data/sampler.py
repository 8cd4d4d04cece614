"""The order of prompts as a pure function of the position, so that one integer is the whole state of the data."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def prompt_at(position: int, n: int, seed: int) -> tuple[int, int]:
    """Return (epoch, index) of the prompt at `position`, counted from 0 over all epochs of `n` prompts.

    Each epoch has its own seeded permutation and contains every prompt exactly once.
    """
    if position < 0 or n < 1:
        raise ValueError(f"position={position} must not be negative and n={n} must be at least 1")
    epoch, offset = divmod(position, n)
    return epoch, int(_permutation(n, seed, epoch)[offset])


@lru_cache(maxsize=4)  # the current epoch, and the next one, which pacing reaches early
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(n)
    order.flags.writeable = False  # shared through the cache
    return order
