"""A curve on one line of text."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*#@"


def sparkline(values: Sequence[float], width: int, levels: str = BLOCKS) -> str:
    """Draw the values from their minimum to their maximum; if they exceed the width, each character is a mean."""
    if not values or width < 1:
        return ""
    means = _means(values, min(width, len(values)))
    low, high = min(means), max(means)
    if high == low:
        return levels[len(levels) // 2] * len(means)
    top = len(levels) - 1
    return "".join(levels[round((value - low) / (high - low) * top)] for value in means)


def _means(values: Sequence[float], count: int) -> list[float]:
    """Return the means of `count` consecutive parts of nearly equal length."""
    edges = [index * len(values) // count for index in range(count + 1)]
    parts = [values[start:end] for start, end in itertools.pairwise(edges)]
    return [sum(part) / len(part) for part in parts]
