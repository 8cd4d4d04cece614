"""Which positions of the prompt order belong to which update."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grpo_gsm8k.data.difficulty import (
    Counts,
    Solved,
    SolveHistory,
    is_drawn,
)
from grpo_gsm8k.data.sampler import prompt_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.task import Item


@dataclass(frozen=True, slots=True)
class PromptPlan:
    """Positions of the prompt order by unfinished update, and the next free position.

    The rest belongs to data.sampler=difficulty: positions skipped while drawing for an update, and the solve counts
    that later draws depend on, see `data/difficulty.py`.
    """

    cursor: int
    positions: dict[int, tuple[int, ...]]
    skipped: dict[int, tuple[int, ...]] = field(default_factory=dict)
    solve_counts: dict[str, Counts] = field(default_factory=dict)
    recent: dict[int, tuple[Solved, ...]] = field(default_factory=dict)


NO_PROMPTS = PromptPlan(0, {})  # at the start of a run


class PromptOrder:
    """Draws the prompts of updates; `cursor` is the first position that is not assigned to an update.

    The order of prompts is a pure function of the position. With data.sampler=difficulty, the draws of update k skip
    positions depending on the results of the updates before k - max_staleness, so on nothing that depends on timing.
    """

    def __init__(self, items: Sequence[Item], config: Config, start: int, plan: PromptPlan) -> None:
        """`start` is the first update."""
        self._items = items
        self._pg = config.policy_gradient
        self._seed = config.seed
        self._cursor = plan.cursor
        self._history = SolveHistory(plan.solve_counts, plan.recent) if config.data.sampler == "difficulty" else None
        self.planned = {step: list(positions) for step, positions in plan.positions.items() if step >= start}
        self.skipped = {step: list(positions) for step, positions in plan.skipped.items() if step >= start}
        self.dropped: dict[int, list[int]] = {}  # by the update that records it

    @property
    def plan(self) -> PromptPlan:
        """Part of a checkpoint: with it a resumed run assigns the same prompts to the same updates.

        Prompts that were dropped during an update that is not recorded yet still wait: the ledger has not heard of it.
        """
        steps = sorted({*self.planned, *self.dropped})
        planned = {step: (*self.planned.get(step, ()), *self.dropped.get(step, ())) for step in steps}
        if self._history is None:
            return PromptPlan(self._cursor, planned)
        skipped = {step: tuple(positions) for step, positions in self.skipped.items()}
        return PromptPlan(self._cursor, planned, skipped, dict(self._history.counts), dict(self._history.recent))

    @property
    def epoch(self) -> float:
        """Passes over the prompts that the finished updates have made, drawn or skipped."""
        unfinished = sum(len(positions) for part in (self.planned, self.skipped) for positions in part.values())
        return (self._cursor - unfinished) / len(self._items)

    def at(self, position: int) -> tuple[int, Item]:
        """Return epoch and item of a position."""
        epoch, index = prompt_at(position, len(self._items), self._seed)
        return epoch, self._items[index]

    def draw(self, step: int) -> list[int]:
        """Draw the prompts of update `step` that it lacks; those of a checkpoint's plan are there already."""
        planned = self.planned.setdefault(step, [])
        missing = self._pg.prompts_per_update - len(planned)
        if missing > 0:
            planned += self._advance(step, missing, step - self._pg.max_staleness)
        return planned

    def draw_more(self, step: int, count: int) -> list[int]:
        """Draw further prompts for update `step`, whose predecessors are all finished."""
        more = self._advance(step, count, step)
        self.planned[step] += more
        return more

    def waiting(self, step: int) -> list[int]:
        """Return the positions planned for update `step` and those after it, in order."""
        return sorted(position for later, planned in self.planned.items() if later >= step for position in planned)

    def claim(self, step: int, positions: Sequence[int]) -> None:
        """Give update `step` these of the waiting positions; the updates after it share the others in their order."""
        self._share(step + 1, sorted({*self.waiting(step)} - {*positions}))
        self.planned[step] = list(positions)

    def drop(self, step: int, positions: Sequence[int], recorded: int) -> None:
        """Drop some of the positions that wait for update `step` or later ones; update `recorded` records it."""
        self._share(step, sorted({*self.waiting(step)} - {*positions}))
        self.dropped.setdefault(recorded, []).extend(positions)

    def _share(self, step: int, positions: Sequence[int]) -> None:
        """Plan exactly these positions for update `step` and those after it, as many for each as it needs."""
        size = self._pg.prompts_per_update
        self.planned = {earlier: planned for earlier, planned in self.planned.items() if earlier < step}
        self.planned |= {step + i // size: list(positions[i : i + size]) for i in range(0, len(positions), size)}

    def record(self, step: int, solved: Sequence[Solved]) -> None:
        """Record the results of update `step` for later draws."""
        if self._history is not None:
            self._history.add(step, solved)

    def _advance(self, step: int, count: int, known: int) -> list[int]:
        """Draw the next `count` prompts for update `step`, given the results of the updates before `known`."""
        if self._history is not None:
            self._history.fold(known)
        positions: list[int] = []
        while len(positions) < count:
            drawn = positions if self._draws(self._cursor) else self.skipped.setdefault(step, [])
            drawn.append(self._cursor)
            self._cursor += 1
        return positions

    def _draws(self, position: int) -> bool:
        if self._history is None:
            return True
        probability = self._history.probability(self.at(position)[1].problem.id, self._pg.group_size)
        return is_drawn(position, self._seed, probability)
