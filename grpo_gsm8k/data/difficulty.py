"""The difficulty sampler: how often a prompt is solved decides how likely an epoch skips it.

A group teaches nothing if its completions are all right or all wrong. A prompt is drawn with the probability that its
next group is mixed, estimated from its earlier groups. The order of positions stays that of `data/sampler.py`, so an
epoch still visits every prompt once, and either draws or skips it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEMORY = 0.5  # weight of a prompt's earlier groups at each new one: the policy changes
STREAM = 11  # separates these random numbers from those of the permutations
Counts = tuple[float, float]  # correct completions and all completions, discounted


@dataclass(frozen=True, slots=True)
class Solved:
    """Number of correct completions of one group."""

    prompt_id: str
    correct: int
    of: int


class SolveHistory:
    """Solve counts by prompt: those folded in, and those of recent updates, which later draws may not use yet."""

    def __init__(self, counts: Mapping[str, Counts], recent: Mapping[int, Sequence[Solved]]) -> None:
        """Continue from a checkpoint's values."""
        self.counts = dict(counts)
        self.recent = {step: tuple(solved) for step, solved in recent.items()}

    def add(self, step: int, solved: Sequence[Solved]) -> None:
        """Add the groups of update `step`."""
        self.recent[step] = tuple(solved)

    def fold(self, before: int) -> None:
        """Let draws depend on the results of all updates before update `before`."""
        for step in sorted(step for step in self.recent if step < before):
            for group in self.recent.pop(step):
                correct, of = self.counts.get(group.prompt_id, (0.0, 0.0))
                self.counts[group.prompt_id] = (MEMORY * correct + group.correct, MEMORY * of + group.of)

    def probability(self, prompt_id: str, group_size: int) -> float:
        """Probability of drawing a prompt; 1 for a prompt without results."""
        return mixed_probability(self.counts[prompt_id], group_size) if prompt_id in self.counts else 1.0


def mixed_probability(counts: Counts, group_size: int) -> float:
    """Probability that a group has both right and wrong completions, never 0 for groups of 2 or more.

    The solve rate is the posterior mean under Jeffreys' prior, so it is never 0 or 1, and no prompt is lost for good.
    """
    correct, of = counts
    rate = (correct + 0.5) / (of + 1)
    return float(1 - rate**group_size - (1 - rate) ** group_size)


def is_drawn(position: int, seed: int, probability: float) -> bool:
    """Whether the prompt at `position` is drawn: a pure function."""
    return bool(np.random.default_rng(np.random.SeedSequence([seed, position, STREAM])).random() < probability)
