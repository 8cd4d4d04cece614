"""Questions that one model fixed or broke compared with another, with the full texts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from grpo_gsm8k.report import words
from grpo_gsm8k.report.material import KIND_NAMES, Answer, Key, Pair

MAX_BYTES = 450_000  # of all texts in the page, which keeps it below 2.5 MB (plotly.js has 1.5 MB)
MARKUP_BYTES = 1000  # per item
MAX_UNCHANGED_BYTES = 150_000  # of the items that stayed right or wrong, within MAX_BYTES
STAYED_RIGHT, STAYED_WRONG = "stayed right", "stayed wrong"


@dataclass(frozen=True, slots=True)
class ChangedItem:
    """One question with both answers. `change` is `fixed`, `broken`, `stayed wrong` or `stayed right`."""

    change: str
    before: Answer
    after: Answer

    @property
    def failed(self) -> str:
        """The kind of the wrong answer of the two, or of the later one; `correct` if both are right."""
        return (self.before if self.change == "fixed" else self.after).kind

    @property
    def page_bytes(self) -> int:
        """Approximate size in the page."""
        texts = (self.before.question, self.before.text, self.after.text)
        return MARKUP_BYTES + sum(len(html.escape(text).encode("utf-8", "replace")) for text in texts)


@dataclass(frozen=True, slots=True)
class PairChanges:
    """The changed items of one pair of models."""

    title: str
    before: str
    after: str
    words: str
    items: tuple[ChangedItem, ...]
    left_out: int
    unchanged: tuple[ChangedItem, ...] = ()
    unchanged_left_out: int = 0


def changed_items(pairs: Sequence[Pair], most: int = MAX_BYTES) -> list[PairChanges]:
    """Return the changed items of each pair, with equal shares of the size limit."""
    unchanged = min(most, MAX_UNCHANGED_BYTES)
    return [_pair_changes(pair, most // len(pairs), unchanged // len(pairs)) for pair in pairs]


def _pair_changes(pair: Pair, room: int, unchanged_room: int) -> PairChanges:
    changes = sorted([(key, "fixed") for key in pair.fixed] + [(key, "broken") for key in pair.broken])
    items, left = _fitting(pair, changes, room)
    same = _unchanged(pair)
    unchanged, _ = _fitting(pair, same, min(left, unchanged_room))
    right = sum(change == STAYED_RIGHT for _, change in same)
    changed = f"{len(pair.fixed)} fixed, {len(pair.broken)} broken"
    text = f"{changed}, {right} stayed right, {len(same) - right} stayed wrong. Overall {words.describe_pair(pair)}."
    if max(pair.before.samples, pair.after.samples) > 1:
        text += " Fixed and broken count the first sample of each question, the difference all samples."
    title = f"{pair.before.label} → {pair.after.label}"
    left_out = (len(changes) - len(items), len(same) - len(unchanged))
    return PairChanges(title, pair.before.label, pair.after.label, text, items, left_out[0], unchanged, left_out[1])


def _fitting(pair: Pair, changes: Sequence[tuple[Key, str]], room: int) -> tuple[tuple[ChangedItem, ...], int]:
    """Return the items that fit into this number of bytes, and how many bytes are left."""
    items: list[ChangedItem] = []
    for key, change in changes:
        item = _item(pair, key, change)
        if item.page_bytes > room:
            break
        room -= item.page_bytes
        items.append(item)
    return tuple(items), room


def _unchanged(pair: Pair) -> list[tuple[Key, str]]:
    """Return the items that neither model got right, alternating with those that both did."""
    common = sorted(key for key in pair.before.answers if key in pair.after.answers)
    same = [key for key in common if key not in {*pair.fixed, *pair.broken}]
    right = [(key, STAYED_RIGHT) for key in same if pair.after.answers[key].kind == "correct"]
    wrong = [(key, STAYED_WRONG) for key in same if pair.after.answers[key].kind != "correct"]
    pairs = zip_longest(wrong, right)
    return [entry for two in pairs for entry in two if entry is not None]


def _item(pair: Pair, key: Key, change: str) -> ChangedItem:
    return ChangedItem(change, pair.before.answers[key], pair.after.answers[key])


def failed_kinds(found: Sequence[PairChanges]) -> dict[str, str]:
    """Return the kinds of errors that occur, with their names."""
    seen = {item.failed for change in found for item in (*change.items, *change.unchanged)} - {"correct"}
    return {kind: name for kind, name in KIND_NAMES.items() if kind in seen}
