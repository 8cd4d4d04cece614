"""Questions that one model fixed or broke against another, with the whole texts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from grpo_gsm8k.report import words
from grpo_gsm8k.report.material import KIND_NAMES, Answer, Key, Pair

MAX_BYTES = 2_500_000  # of all texts of a report as the page holds them: it stays below 10 MB
MARKUP_BYTES = 1000  # around one item


@dataclass(frozen=True, slots=True)
class ChangedItem:
    """One question with both answers. `change` is `fixed` or `broken`."""

    change: str
    before: Answer
    after: Answer

    @property
    def failed(self) -> str:
        """The kind of the wrong one of the two answers."""
        return (self.before if self.change == "fixed" else self.after).kind

    @property
    def page_bytes(self) -> int:
        """What it takes in the page, roughly."""
        texts = (self.before.question, self.before.text, self.after.text)
        return MARKUP_BYTES + sum(len(html.escape(text).encode("utf-8", "replace")) for text in texts)


@dataclass(frozen=True, slots=True)
class PairChanges:
    """The items of one pair of models."""

    title: str
    before: str
    after: str
    words: str
    items: tuple[ChangedItem, ...]
    left_out: int


def changed_items(pairs: Sequence[Pair], most: int = MAX_BYTES) -> list[PairChanges]:
    """The changed items of each pair, each with its share of the room for texts."""
    return [_pair_changes(pair, most // len(pairs)) for pair in pairs]


def _pair_changes(pair: Pair, room: int) -> PairChanges:
    found = sorted([(key, "fixed") for key in pair.fixed] + [(key, "broken") for key in pair.broken])
    items: list[ChangedItem] = []
    for key, change in found:
        item = _item(pair, key, change)
        room -= item.page_bytes
        if room < 0:
            break
        items.append(item)
    same = pair.found.items - len(found)
    said = f"{len(pair.fixed)} fixed, {len(pair.broken)} broken, {same} unchanged. In all, {words.describe_pair(pair)}."
    if max(pair.before.samples, pair.after.samples) > 1:
        said += " Fixed and broken are by the first sample of each question, the difference by all."
    title = f"{pair.before.label} → {pair.after.label}"
    return PairChanges(title, pair.before.label, pair.after.label, said, tuple(items), len(found) - len(items))


def _item(pair: Pair, key: Key, change: str) -> ChangedItem:
    return ChangedItem(change, pair.before.answers[key], pair.after.answers[key])


def failed_kinds(found: Sequence[PairChanges]) -> dict[str, str]:
    """The kinds of errors that occur, with their names."""
    seen = {item.failed for change in found for item in change.items}
    return {kind: name for kind, name in KIND_NAMES.items() if kind in seen}
