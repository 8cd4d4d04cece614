"""The section "What to look at": the diagnoses of the training runs of a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.diagnoses.diagnose import CHECKS, diagnose
from grpo_gsm8k.diagnoses.run_diagnosis import RunDiagnosis
from grpo_gsm8k.diagnoses.run_record import MIN_UPDATES, RunRecord, machine_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.report.material import Run


@dataclass(frozen=True, slots=True)
class RunVerdict:
    """One training run: a sentence about it, and its diagnoses, warnings first."""

    run: str
    text: str
    diagnoses: tuple[RunDiagnosis, ...]


def verdicts(runs: Sequence[Run]) -> tuple[RunVerdict, ...]:
    """Return the verdicts of the training runs. They are computed from the records, so older runs have them, too."""
    return tuple(_verdict(run) for run in runs if run.command != "eval")


def _verdict(run: Run) -> RunVerdict:
    record = RunRecord(run.steps, run.validations, run.events, run.config, machine_of(run.manifest))
    found = diagnose(record)
    return RunVerdict(run.name, _sentence(found, len(run.steps)), found)


def _sentence(found: Sequence[RunDiagnosis], updates: int) -> str:
    warnings = sum(diagnosis.severity == "warning" for diagnosis in found)
    notes = len(found) - warnings
    if warnings:
        return _counted(warnings, "warning") + (f" and {_counted(notes, 'note')}" if notes else "")
    short = f"; too short for those of trends, which need {MIN_UPDATES} updates" if updates < MIN_UPDATES else ""
    healthy = f"healthy: {len(CHECKS)} checks on {_counted(updates, 'update')} give no warning{short}"
    return healthy + (f", but {_counted(notes, 'note')}" if notes else "")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
