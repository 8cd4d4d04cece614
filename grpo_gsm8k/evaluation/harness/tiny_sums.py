"""Data of the lm-eval task `tiny_sums`: sums of two digits with four choices, the same ones every time."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets

_SHOTS, _ITEMS = 8, 40


def sums(**_: Any) -> dict[str, datasets.Dataset]:
    """Return the splits `train`, for worked examples, and `test`."""
    import datasets  # lazy: it takes two seconds

    pairs = [(a, b) for a in range(1, 10) for b in range(1, 10)]
    rng = random.Random(0)
    rng.shuffle(pairs)
    rows = [_row(a, b, rng) for a, b in pairs[: _SHOTS + _ITEMS]]
    return {"train": datasets.Dataset.from_list(rows[:_SHOTS]), "test": datasets.Dataset.from_list(rows[_SHOTS:])}


def _row(a: int, b: int, rng: random.Random) -> dict[str, Any]:
    choices = [a + b, a + b + 1, a + b + 2, a + b - 1]
    rng.shuffle(choices)
    return {"question": f"{a} + {b} =", "choices": [str(choice) for choice in choices], "label": choices.index(a + b)}
