"""A problem as grading sees it: a question with its gold answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A question and its worked answer. `gold_number` is canonical, in English notation: `1080`, `-0.5`."""

    id: str
    question: str
    answer: str
    gold_number: str
