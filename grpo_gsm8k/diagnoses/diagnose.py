"""Diagnoses of a run: every check on its records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from grpo_gsm8k.diagnoses import pace_checks, policy_checks, reward_checks, validation_checks
from grpo_gsm8k.diagnoses.run_diagnosis import Check, RunDiagnosis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.diagnoses.run_record import RunRecord

CHECKS: Final[tuple[Check, ...]] = (
    *reward_checks.CHECKS,
    *validation_checks.CHECKS,
    *policy_checks.CHECKS,
    *pace_checks.CHECKS,
)


def diagnose(record: RunRecord) -> tuple[RunDiagnosis, ...]:
    """Return what is wrong with a run, warnings first; empty for a healthy one. Missing records give no diagnosis."""
    found = [(check, check.run(record)) for check in CHECKS]
    made = [
        RunDiagnosis(check.kind, result.severity or check.severity, result.evidence, result.advice, check.keys)
        for check, result in found
        if result is not None
    ]
    return tuple(sorted(made, key=lambda diagnosis: diagnosis.severity != "warning"))


def as_summary(diagnoses: Sequence[RunDiagnosis]) -> list[dict[str, Any]]:
    """Return diagnoses as summary.json holds them."""
    return [{**asdict(diagnosis), "keys": list(diagnosis.keys)} for diagnosis in diagnoses]


def warning_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return one line for the terminal per warning in the content of summary.json; none for one of an older run."""
    found = [RunDiagnosis(**{**stored, "keys": tuple(stored["keys"])}) for stored in summary.get("diagnoses", ())]
    lines = [f"warning: {diagnosis.line}" for diagnosis in found if diagnosis.severity == "warning"]
    # A worker's last error may contain anything, also what would control the terminal.
    return ["".join(c if c.isprintable() else "?" for c in line) for line in lines]
