"""What a report is made of: runs as they were recorded, and what models answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpo_gsm8k.evaluation.statistics.comparison import Comparison

Key = tuple[str, str]
"""An item is its id and its question: two data sets may number their questions alike."""
KINDS = ("correct", "logic", "format", "truncated")
KIND_NAMES = {
    "correct": "right",
    "logic": "wrong result",
    "format": "no readable result",
    "truncated": "ended by the token limit",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder; what is missing or unreadable there is empty here."""

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

    @property
    def versions(self) -> list[int]:
        """The validated versions whose answers were recorded, lowest first."""
        return [v for v in (int(r["version"]) for r in self.validations) if self.answers_path(v).is_file()]

    def answers_path(self, version: int) -> Path:
        """Where the answers of a validation are."""
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
    """What one model answered: the first sample of each item, and what share of its samples is right."""

    label: str
    run: str
    version: int | None
    answers: Mapping[Key, Answer]
    share_right: Mapping[Key, float]
    kind_counts: Mapping[str, int]
    samples: int
    asked: str  # the label without the temperature

    @property
    def accuracy(self) -> float:
        """Share of right samples, of all items."""
        return sum(self.share_right.values()) / len(self.share_right)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answer sets on the items that both have: what the second fixed and broke, and how sure the difference is."""

    before: AnswerSet
    after: AnswerSet
    family: str  # comparisons that are corrected together
    fixed: tuple[Key, ...]
    broken: tuple[Key, ...]
    found: Comparison
    p_holm: float


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that figures and tables are drawn from."""

    runs: tuple[Run, ...]
    baseline: Run
    shown: tuple[AnswerSet, ...]  # bars of the error kinds
    asked: tuple[AnswerSet, ...]  # rows of the heat map: the same over all temperatures
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    def pair(self, family: str, run: Run) -> Pair | None:
        """The comparison of this family whose second side is of the run."""
        return next((p for p in self.pairs if p.family == family and p.after.run == run.name), None)


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a header, rows of text, and what to know when reading them."""

    id: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A plotly figure, with its numbers in words for those who cannot see it."""

    id: str
    title: str
    caption: str
    words: tuple[str, ...]
    data: tuple[dict[str, Any], ...]
    layout: dict[str, Any]
    legend: tuple[tuple[str, str], ...] = ()  # names and colours
    height: int = 320
