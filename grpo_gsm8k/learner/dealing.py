"""How sequences and parameters are dealt to the ranks of the learner: pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Part(NamedTuple):
    """Part `rank` of `ranks`, counted from 0.

    `lockstep`: every part has equally many micro-batches, because the ranks exchange weights in each pass.
    """

    rank: int
    ranks: int
    lockstep: bool = False


WHOLE = Part(0, 1)


def owners(sizes: Sequence[int], ranks: int) -> list[int]:
    """Return the rank of each item, so that the ranks' sums of sizes are nearly equal.

    Longest first: each item, the largest ones before the others, goes to the rank with the smallest sum so far
    (Graham 1969, "Bounds on multiprocessing timing anomalies": the largest sum is at most 4/3 of the smallest
    possible). Every rank computes the same division; ties go to the lower index and the lower rank.
    """
    sums = [0] * ranks
    found = [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        rank = min(range(ranks), key=lambda r: (sums[r], r))
        sums[rank] += sizes[index]
        found[index] = rank
    return found


def deal(sizes: Sequence[int], part: Part) -> list[int]:
    """Return the indices of the items that belong to one rank's part."""
    return [index for index, rank in enumerate(owners(sizes, part.ranks)) if rank == part.rank]
