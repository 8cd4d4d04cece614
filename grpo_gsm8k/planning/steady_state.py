"""Speed and idle shares from the spans of a timeline, of a recorded run and of a simulated one alike."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.tracking.run_folder import RunFolder

LEARNER = "learner"
WAITING = "wait for rollouts"
UPDATE_END = "records"  # the last span of an update; its version is the update's number
ENGINE_WORK = ("generate", "load")


@dataclass(frozen=True, slots=True)
class TimedSpan:
    """A span of a worker's time, in seconds; `row` is the worker's name."""

    row: str
    name: str
    version: int
    start_s: float
    seconds: float

    @property
    def end_s(self) -> float:
        """When it ended."""
        return self.start_s + self.seconds


@dataclass(frozen=True, slots=True)
class SteadyState:
    """A run without its first and last updates: `updates` updates between `start_s` and `end_s`.

    Idle shares are fractions of that time: the learner waits for completions, the engines have nothing to do.
    """

    start_s: float
    end_s: float
    updates: int
    learner_idle: float
    engines_idle: float

    @property
    def step_s(self) -> float:
        """Seconds per policy update."""
        return (self.end_s - self.start_s) / self.updates

    @property
    def updates_per_hour(self) -> float:
        """Policy updates per hour."""
        return 3600 / self.step_s


def steady_state(spans: Sequence[TimedSpan], actors: int, max_staleness: int) -> SteadyState:
    """Measure a run without the first `unsteady` updates, and the last ones. Raises UserError if none are left.

    While the last `max_staleness` updates are computed, the engines have nothing left to do.
    """
    ends = sorted(span.end_s for span in spans if span.row == LEARNER and span.name == UPDATE_END)
    first, last = unsteady(max_staleness) - 1, len(ends) - 1 - max_staleness
    if last <= first:
        least = first + max_staleness + 2
        raise UserError(f"a plan needs a run of at least {least} updates, and this one has {len(ends)}: make it longer")
    start, end = ends[first], ends[last]
    waiting = [span for span in spans if span.row == LEARNER and span.name == WAITING]
    working = [span for span in spans if span.name in ENGINE_WORK]
    seconds = end - start
    idle = 1 - within(working, start, end) / actors / seconds
    return SteadyState(start, end, last - first, within(waiting, start, end) / seconds, max(0.0, idle))


def unsteady(max_staleness: int) -> int:
    """Return how many updates at the start do not count: in them kernels are compiled, and the engines gain a lead."""
    return max_staleness + 2


def within(spans: Sequence[TimedSpan], start_s: float, end_s: float) -> float:
    """Return how many seconds of the spans lie between two times."""
    return sum(max(0.0, min(span.end_s, end_s) - max(span.start_s, start_s)) for span in spans)


def recorded_spans(run: RunFolder) -> list[TimedSpan]:
    """Read the spans of `trace.json`. Raises UserError if it is missing or damaged."""
    try:
        events = json.loads(run.trace_json.read_text(encoding="utf-8"))
        rows = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
        return [
            TimedSpan(rows[e["pid"]], e["name"], e["args"]["version"], e["ts"] / 1e6, e["dur"] / 1e6)
            for e in events
            if e["ph"] == "X"
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run.trace_json} cannot be read ({type(error).__name__}): plan from another run") from None
