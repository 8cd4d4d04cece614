"""Parts of nearly equal size, the same on every rank."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from grpo_gsm8k.learner.batching import pack
from grpo_gsm8k.learner.dealing import WHOLE, Part, deal
from tests.learner.conftest import random_groups


def parts(sizes: list[int], ranks: int) -> list[list[int]]:
    return [deal(sizes, Part(rank, ranks)) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_item_goes_to_one_part_and_parts_are_nearly_equal(ranks: int) -> None:
    """Compared with the best of all divisions: at most 4/3 of it (Graham's bound)."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        sizes = rng.integers(1, 50, size=7).tolist()
        found = parts(sizes, ranks)
        assert sorted(i for part in found for i in part) == list(range(7))
        best = min(
            max(sum(size for size, to in zip(sizes, chosen, strict=True) if to == rank) for rank in range(ranks))
            for chosen in product(range(ranks), repeat=7)
        )
        assert max(sum(sizes[i] for i in part) for part in found) <= 4 / 3 * best


def test_a_part_may_be_empty() -> None:
    assert parts([5], 2) == [[0], []]


def test_ranks_share_no_prompt_that_fits_the_budget() -> None:
    samples = [s for group in random_groups(7, 4) for s in group]
    seen = []
    for rank in range(3):
        mine = [i for indices in pack(samples, 200, Part(rank, 3)) for i in indices]
        seen.append({samples[i].prompt_ids.tobytes() for i in mine})
    assert sum(map(len, seen)) == len(set.union(*seen)) == 7
    assert sorted(i for indices in pack(samples, 200, WHOLE) for i in indices) == list(range(28))
