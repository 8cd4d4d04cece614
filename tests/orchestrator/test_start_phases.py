"""Phases of a run's start, from the messages of its workers."""

from __future__ import annotations

from typing import cast

import pytest

from grpo_gsm8k.orchestrator import start_phases
from grpo_gsm8k.orchestrator.start_phases import (
    ENGINE,
    FIRST_WEIGHTS,
    LEARNER,
    UPDATE,
    VALIDATION,
    WEIGHTS,
    StartPhases,
)
from grpo_gsm8k.tracking.tracker import Tracker
from grpo_gsm8k.transport.protocol import Ready, Resumed, StepDone, ValidationDone, ValidationStarted


class Shown:
    """Records the calls that a tracker gets."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin(self, phase: str) -> None:
        self.calls.append(f"+{phase}")

    def end(self, phase: str, seconds: float) -> None:
        self.calls.append(f"-{phase} {seconds:g}")

    def validating(self, version: int) -> None:
        self.calls.append(f"validating {version}")

    def note(self, text: str) -> None:
        self.calls.append(text)

    def new(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock whose first entry is the time."""
    now = [0.0]
    monkeypatch.setattr(start_phases.time, "monotonic", lambda: now[0])
    return now


def test_a_run_from_its_start_to_its_first_update(clock: list[float]) -> None:
    shown = Shown()
    phases = StartPhases(cast(Tracker, shown), learning_waits=True)
    phases.learner_started()
    clock[0] = 6.0
    phases.learner_message(Ready())
    phases.engine_started()
    assert shown.new() == [f"+{LEARNER}", f"-{LEARNER} 6", f"+{WEIGHTS}", f"+{ENGINE}"]
    clock[0] = 18.0
    phases.learner_message(Resumed(0, 30))
    phases.learner_message(ValidationStarted(0))
    assert shown.new() == [f"-{WEIGHTS} 12"]  # the validation waits for the engine
    clock[0] = 47.0
    phases.engine_state(ready=False, live=False)  # the first of two engines
    phases.engine_state(ready=True, live=False)
    assert shown.new() == [f"-{ENGINE} 41", f"+{FIRST_WEIGHTS}"]
    clock[0] = 48.0
    phases.engine_state(ready=True, live=True)
    assert shown.new() == [f"-{FIRST_WEIGHTS} 1", f"+{VALIDATION}", f"+{UPDATE}"]
    clock[0] = 56.0
    phases.learner_message(ValidationDone(0, {}))
    phases.learner_message(StepDone(1, {}, ()))
    assert shown.new() == [f"-{VALIDATION} 8", f"-{UPDATE} 8"]
    phases.engine_state(ready=True, live=True)
    phases.learner_message(StepDone(2, {}, ()))
    phases.learner_message(ValidationStarted(10))
    phases.learner_message(ValidationDone(10, {}))
    assert shown.new() == ["validating 10"]


def test_fine_tuning_does_not_wait_for_the_engine(clock: list[float]) -> None:
    shown = Shown()
    phases = StartPhases(cast(Tracker, shown), learning_waits=False)
    phases.learner_started()
    phases.learner_message(Ready())
    phases.engine_started()
    shown.new()
    phases.learner_message(Resumed(0, 30))
    assert shown.new() == [f"-{WEIGHTS} 0", f"+{UPDATE}"]
    phases.learner_message(ValidationStarted(0))
    phases.learner_message(StepDone(1, {}, ()))
    phases.engine_state(ready=True, live=False)
    phases.engine_state(ready=True, live=True)
    assert shown.new() == [f"-{UPDATE} 0", f"-{ENGINE} 0", f"+{VALIDATION}"]


def test_a_replaced_learner_starts_again_and_says_where_it_continues(clock: list[float]) -> None:
    shown = Shown()
    phases = StartPhases(cast(Tracker, shown), learning_waits=True)
    phases.learner_started()
    phases.learner_message(Ready())
    phases.engine_started()
    phases.learner_message(Resumed(0, 30))
    phases.engine_state(ready=True, live=True)
    phases.learner_message(StepDone(1, {}, ()))
    shown.new()
    phases.learner_started()
    phases.learner_message(Ready())
    phases.engine_started()
    phases.learner_message(Resumed(1, 30))
    expected = [f"+{LEARNER}", f"-{LEARNER} 0", f"+{WEIGHTS}", f"-{WEIGHTS} 0", "continuing after update 1"]
    assert shown.new() == expected
