"""A problem as grading sees it: a question with its gold answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """A question and its worked answer.

    `gold` is the gold answer in its stored form; a number is canonical, in English notation: `1080`, `-0.5`. `extra`
    holds the other columns of the row, as JSON values.
    """

    id: str
    question: str
    answer: str
    gold: str
    extra: Mapping[str, Any] = field(default_factory=dict)


def with_current_names(record: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a record with the key `gold`, which files written before 2026-11-25 call `gold_number`."""
    if "gold" in record:
        return dict(record)
    return {"gold" if key == "gold_number" else key: value for key, value in record.items()}
