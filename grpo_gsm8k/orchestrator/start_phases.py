"""What happens between the start of a run and its first update, as seen in the workers' messages."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from grpo_gsm8k.transport.protocol import Ready, Resumed, StepDone, ValidationDone, ValidationStarted

if TYPE_CHECKING:
    from grpo_gsm8k.tracking.tracker import Tracker

LEARNER: Final = "starting the learner, checking data and prompts"
WEIGHTS: Final = "loading weights"
ENGINE: Final = "starting the engine"
FIRST_WEIGHTS: Final = "handing weights to the engine"
VALIDATION: Final = "first validation"
UPDATE: Final = "first update"


class StartPhases:
    """Shows and records phases. Some overlap: the engine starts while the learner loads its weights."""

    def __init__(self, tracker: Tracker, learning_waits: bool) -> None:
        """`learning_waits`: the first update needs the engine, which fine-tuning's does not."""
        self._tracker = tracker
        self._learning_waits = learning_waits
        self._begun: dict[str, float] = {}
        self._engine_ready = self._resumed = self._live = self._updated = False
        self._to_validate: int | None = None

    def learner_started(self) -> None:
        """Take note of a new learner process, the first one or a replacement."""
        self._begun.clear()
        self._resumed = False
        self._begin(LEARNER)

    def engine_started(self) -> None:
        """Take note that the engines were started; only the first time counts."""
        if not self._engine_ready:
            self._begin(ENGINE)

    def engine_state(self, ready: bool, live: bool) -> None:
        """Take note of whether all engines are ready, and whether one generates with published weights."""
        if ready and not self._engine_ready:
            self._engine_ready = True
            self._end(ENGINE)
            self._hand_over()
        if live and not self._live:
            self._live = True
            self._end(FIRST_WEIGHTS)
            if self._to_validate is not None:
                self._begin(VALIDATION)
            if self._learning_waits:
                self._first_update()

    def learner_message(self, message: object) -> None:
        """Take note of a message of the learner."""
        match message:
            case Ready():
                self._end(LEARNER)
                self._begin(WEIGHTS)
            case Resumed(step):
                self._resumed = True
                self._end(WEIGHTS)
                if step:
                    self._tracker.note(f"continuing after update {step}")
                self._hand_over()
                if not self._learning_waits:
                    self._first_update()
            case ValidationStarted(version):
                self._validate(version)
            case ValidationDone(version) if version == self._to_validate:
                self._end(VALIDATION)
            case StepDone():
                self._updated = True
                self._end(UPDATE)

    def _hand_over(self) -> None:
        if self._engine_ready and self._resumed and not self._live and self._learning_waits:
            self._begin(FIRST_WEIGHTS)

    def _validate(self, version: int) -> None:
        if self._to_validate is not None or self._updated:
            self._tracker.validating(version)
            return
        self._to_validate = version
        if self._live:
            self._begin(VALIDATION)

    def _first_update(self) -> None:
        if not self._updated:
            self._begin(UPDATE)

    def _begin(self, phase: str) -> None:
        if phase not in self._begun:
            self._begun[phase] = time.monotonic()
            self._tracker.begin(phase)

    def _end(self, phase: str) -> None:
        if (begun := self._begun.pop(phase, None)) is not None:
            self._tracker.end(phase, time.monotonic() - begun)
