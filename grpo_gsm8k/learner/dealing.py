"""How the sequences of an optimizer step are dealt to the ranks of the learner: pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Part(NamedTuple):
    """Part `rank` of `ranks`, counted from 0."""

    rank: int
    ranks: int


WHOLE = Part(0, 1)


def deal(sizes: Sequence[int], part: Part) -> list[int]:
    """Return the indices of the items that belong to a part, so that the parts' sums of sizes are nearly equal.

    Longest first: each item, the largest ones before the others, goes to the part with the smallest sum so far
    (Graham 1969, "Bounds on multiprocessing timing anomalies": the largest sum is at most 4/3 of the smallest
    possible). Every rank computes the same division; ties go to the lower index and the lower rank.
    """
    sums = [0] * part.ranks
    mine = []
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        rank = min(range(part.ranks), key=lambda r: (sums[r], r))
        sums[rank] += sizes[index]
        if rank == part.rank:
            mine.append(index)
    return mine
