"""Types of the diagnoses: what a check looks for, what it found, and the diagnosis that is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpo_gsm8k.diagnoses.run_record import RunRecord

Severity = Literal["warning", "note"]
"""`warning`: the run learns less than it could, or not at all. `note`: it is slower, or further from its method."""


@dataclass(frozen=True, slots=True)
class Found:
    """Result of a check that applies: the measured figures, and what to change, with the key."""

    evidence: str
    advice: str
    severity: Severity | None = None  # None: that of the check


@dataclass(frozen=True, slots=True)
class Check:
    """One kind of diagnosis. `shown_if` and `keys` are its row in docs/diagnoses.md."""

    kind: str
    severity: Severity
    shown_if: str
    keys: tuple[str, ...]
    run: Callable[[RunRecord], Found | None]


@dataclass(frozen=True, slots=True)
class RunDiagnosis:
    """A diagnosis of one run, as summary.json and the report show it."""

    kind: str
    severity: Severity
    evidence: str
    advice: str
    keys: tuple[str, ...]

    @property
    def title(self) -> str:
        """The kind in words."""
        return self.kind.replace("_", " ").replace("kl ", "KL ")

    @property
    def line(self) -> str:
        """The diagnosis in one line."""
        return f"{self.title}: {self.evidence}: {self.advice}"
