"""Questions that one model fixed or broke compared with another, with the full texts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from grpo_gsm8k.report import words
from grpo_gsm8k.report.material import KIND_NAMES, Answer, Key, Pair

MAX_BYTES = 450_000  # of all texts in the page, which keeps it below 2.5 MB (plotly.js has 1.5 MB)
MARKUP_BYTES = 1000  # per item


@dataclass(frozen=True, slots=True)
class ChangedItem:
    """One question with both answers. `change` is `fixed` or `broken`."""

    change: str
    before: Answer
    after: Answer

    @property
    def failed(self) -> str:
        """The kind of the wrong answer of the two."""
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


def changed_items(pairs: Sequence[Pair], most: int = MAX_BYTES) -> list[PairChanges]:
    """Return the changed items of each pair, with equal shares of the size limit."""
    return [_pair_changes(pair, most // len(pairs)) for pair in pairs]


def _pair_changes(pair: Pair, room: int) -> PairChanges:
    changes = sorted([(key, "fixed") for key in pair.fixed] + [(key, "broken") for key in pair.broken])
    items: list[ChangedItem] = []
    for key, change in changes:
        item = _item(pair, key, change)
        room -= item.page_bytes
        if room < 0:
            break
        items.append(item)
    same = pair.found.items - len(changes)
    text = f"{len(pair.fixed)} fixed, {len(pair.broken)} broken, {same} unchanged. Overall {words.describe_pair(pair)}."
    if max(pair.before.samples, pair.after.samples) > 1:
        text += " Fixed and broken count the first sample of each question, the difference all samples."
    title = f"{pair.before.label} → {pair.after.label}"
    return PairChanges(title, pair.before.label, pair.after.label, text, tuple(items), len(changes) - len(items))


def _item(pair: Pair, key: Key, change: str) -> ChangedItem:
    return ChangedItem(change, pair.before.answers[key], pair.after.answers[key])


def failed_kinds(found: Sequence[PairChanges]) -> dict[str, str]:
    """Return the kinds of errors that occur, with their names."""
    seen = {item.failed for change in found for item in change.items}
    return {kind: name for kind, name in KIND_NAMES.items() if kind in seen}
