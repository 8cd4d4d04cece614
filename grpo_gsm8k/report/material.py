"""The data of a report: recorded runs, answers of models, tables and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpo_gsm8k.evaluation.statistics.comparison import Comparison

Key = tuple[str, str]
"""Key of an item: its id and its question, because data sets may use the same ids."""
KINDS = ("correct", "logic", "format", "truncated")
KIND_NAMES = {
    "correct": "right",
    "logic": "wrong result",
    "format": "no readable result",
    "truncated": "ended by the token limit",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder; missing or unreadable parts are empty."""

    name: str
    folder: Path
    command: str
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    steps: tuple[Mapping[str, Any], ...]
    validations: tuple[Mapping[str, Any], ...]
    wall_seconds: float | None
    notes: tuple[str, ...] = ()
    events: tuple[Mapping[str, Any], ...] = ()

    @property
    def versions(self) -> list[int]:
        """Validated versions with recorded answers, in ascending order."""
        return [v for v in (int(r["version"]) for r in self.validations) if self.answers_path(v).is_file()]

    def answers_path(self, version: int) -> Path:
        """Return the file with the answers of a validation."""
        return self.folder / "validation" / f"step_{version}.parquet"


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion and its verdict."""

    item_id: str
    question: str
    gold: str
    text: str
    extracted: str | None
    kind: str


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """Answers of one model: the first sample of each item, and the share of its samples that are right."""

    label: str
    run: str
    version: int | None
    answers: Mapping[Key, Answer]
    share_right: Mapping[Key, float]
    kind_counts: Mapping[str, int]
    samples: int
    base_label: str  # the label without the temperature

    @property
    def accuracy(self) -> float:
        """Mean over items of the share of right samples."""
        return sum(self.share_right.values()) / len(self.share_right)


@dataclass(frozen=True, slots=True)
class Pair:
    """Comparison of two answer sets on their common items: fixed and broken items, and the difference."""

    before: AnswerSet
    after: AnswerSet
    family: str  # pairs of one family are corrected together
    fixed: tuple[Key, ...]
    broken: tuple[Key, ...]
    found: Comparison
    p_holm: float


@dataclass(frozen=True, slots=True)
class Material:
    """Input of the figures and tables."""

    runs: tuple[Run, ...]
    baseline: Run
    shown: tuple[AnswerSet, ...]  # bars of the kinds of answers
    merged: tuple[AnswerSet, ...]  # rows of the heat map: the answer sets merged over temperatures
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    def pair(self, family: str, run: Run) -> Pair | None:
        """Return the pair of this family whose second side belongs to the run."""
        return next((p for p in self.pairs if p.family == family and p.after.run == run.name), None)


@dataclass(frozen=True, slots=True)
class Table:
    """Title, header, rows of text, and an explanatory note."""

    id: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class FileLink:
    """A file or folder that a report was made from; `address` is relative to the report."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A plotly figure, with its numbers as text for readers who cannot see it."""

    id: str
    title: str
    caption: str
    words: tuple[str, ...]
    data: tuple[dict[str, Any], ...]
    layout: dict[str, Any]
    legend: tuple[tuple[str, str], ...] = ()  # names and colors
    height: int = 320


@dataclass(frozen=True, slots=True)
class PanelGroup:
    """The panels of one theme, and the names and values of its metrics that are constant over all runs."""

    title: str
    figures: tuple[Figure, ...]
    constant: tuple[str, ...]
