"""Which validation items were right at which validation of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from grpo_gsm8k.report import collect
from grpo_gsm8k.report.material import Key, Run
from grpo_gsm8k.report.rollout_rows import read_table, rows_of

MAX_ITEMS = 900  # of all runs together
MAX_VALIDATIONS = 24  # per run
RIGHT, WRONG, UNASKED = "1", "0", "-"
OUTCOMES = ("stayed right", "became right", "became wrong", "stayed wrong")


@dataclass(frozen=True, slots=True)
class ItemHistory:
    """One item: a character per validation, `1` right, `0` wrong, `-` not asked."""

    key: Key
    verdicts: str

    @property
    def outcome(self) -> str:
        """What became of the item from its first validation to its last."""
        asked = self.verdicts.replace(UNASKED, "")
        if asked[0] == asked[-1]:
            return "stayed right" if asked[0] == RIGHT else "stayed wrong"
        return "became right" if asked[-1] == RIGHT else "became wrong"

    @property
    def changes(self) -> int:
        """The number of times that the verdict changed."""
        asked = self.verdicts.replace(UNASKED, "")
        return sum(one != other for one, other in pairwise(asked))


@dataclass(frozen=True, slots=True)
class ItemHistories:
    """The items of one run, in the order of their outcomes."""

    run: str
    versions: tuple[int, ...]
    items: tuple[ItemHistory, ...]
    caption: str
    words: tuple[str, ...]

    def page_data(self) -> dict[str, Any]:
        """Return ids and verdicts."""
        outcomes = [[name, sum(item.outcome == name for item in self.items)] for name in OUTCOMES]
        rows = [[item.key[0], item.verdicts] for item in self.items]
        return {"run": self.run, "versions": self.versions, "items": rows, "outcomes": outcomes}


def item_histories(runs: Sequence[Run], most: int = MAX_ITEMS) -> list[ItemHistories]:
    """Return the histories of each run with at least two validations; `most` items are shared equally."""
    known = [run for run in runs if run.command != "eval" and len(run.versions) > 1]
    found = [_of_run(run, most // len(known)) for run in known]
    return [histories for histories in found if histories is not None]


def _of_run(run: Run, most: int) -> ItemHistories | None:
    versions = collect.spread(run.versions, MAX_VALIDATIONS)
    verdicts: dict[Key, list[str]] = {}
    for at, version in enumerate(versions):
        for key, right in _right_items(run, version).items():
            verdicts.setdefault(key, [UNASKED] * len(versions))[at] = RIGHT if right else WRONG
    every = [ItemHistory(key, "".join(found)) for key, found in verdicts.items()]
    every.sort(key=lambda item: (OUTCOMES.index(item.outcome), item.changes, _flipped(item.verdicts), item.key))
    if not every:
        return None
    shown = [every[at] for at in collect.spread(range(len(every)), most)] if most > 1 else every[:most]
    caption = f"{len(shown):,} of {len(every):,} items, {len(versions)} of {len(run.versions)} validations"
    return ItemHistories(run.name, tuple(versions), tuple(shown), caption, tuple(_words(every, versions)))


def _right_items(run: Run, version: int) -> dict[Key, bool]:
    """Return whether an item's first answer of a validation is right; nothing if the file is unreadable."""
    table = read_table(run.answers_path(version), ("prompt_id", "question", "kind"))
    found: dict[Key, bool] = {}
    for row in [] if table is None else rows_of(table):
        found.setdefault((str(row["prompt_id"]), str(row["question"])), row["kind"] == "correct")
    return found


def _flipped(verdicts: str) -> str:
    """Return the verdicts with a sorting order in which items that were right early come first."""
    return verdicts.translate(str.maketrans("10-", "012"))


def _words(every: Sequence[ItemHistory], versions: Sequence[int]) -> list[str]:
    counts = Counter(item.outcome for item in every)
    parts = ", ".join(f"{counts[name]:,} {name}" for name in OUTCOMES)
    found = [f"From the first validation to the last, of {len(every):,} items: {parts}"]
    if len(versions) > 2:
        often = sum(item.changes > 1 for item in every)
        never = sum(RIGHT not in item.verdicts for item in every)
        found.append(f"{often:,} changed more than once; {never:,} were never right")
    return found
