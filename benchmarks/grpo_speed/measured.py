"""What is measured of a side, and how sides are compared. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.grpo_speed.memory import PeakMemory

# Targets of this project for two CPU cores and a model of 135M parameters.
FASTER = 3.2  # times as fast as TRL
SHARE_OF_LIMIT = 0.8
MEMORY = 1.0  # of TRL's


@dataclass(frozen=True, slots=True)
class Update:
    """Seconds of one update: the whole, until its rollouts are there, and the rest."""

    seconds: float
    generation_s: float
    training_s: float


@dataclass(frozen=True, slots=True)
class Round:
    """The updates of one process, and its peak memory."""

    updates: list[Update]
    memory: PeakMemory


@dataclass(frozen=True, slots=True)
class Side:
    """Medians over the updates of all rounds; memory is the largest of all rounds in MiB."""

    seconds: float
    generation_s: float
    training_s: float
    resident_mb: float
    proportional_mb: float
    shared_files_mb: float


@dataclass(frozen=True, slots=True)
class Target:
    """One target, the value reached, and whether it is met."""

    text: str
    value: float
    met: bool


def summary(rounds: Sequence[Round]) -> Side:
    """Return medians and largest memory."""
    updates = [update for item in rounds for update in item.updates]
    return Side(
        seconds=statistics.median(u.seconds for u in updates),
        generation_s=statistics.median(u.generation_s for u in updates),
        training_s=statistics.median(u.training_s for u in updates),
        resident_mb=max(item.memory.resident_mb for item in rounds),
        proportional_mb=max(item.memory.proportional_mb for item in rounds),
        shared_files_mb=max(item.memory.shared_files_mb for item in rounds),
    )


def targets(ours: Side, trl: Side | None, limit_s: float) -> list[Target]:
    """Compare with the targets; those that need TRL are left out without it."""
    found = [_at_least("share of the arithmetic limit", limit_s / ours.seconds, SHARE_OF_LIMIT)]
    if trl is not None:
        ratio = ours.resident_mb / trl.resident_mb
        found = [
            _at_least("times as fast as TRL", trl.seconds / ours.seconds, FASTER),
            *found,
            Target(f"memory relative to TRL's, at most {MEMORY}", ratio, ratio <= MEMORY),
        ]
    return found


def _at_least(text: str, value: float, least: float) -> Target:
    return Target(f"{text}, at least {least}", value, value >= least)
