"""The actors of one run, each replaced at its index when it fails, and the router of their requests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from grpo_gsm8k.runtime.restarts import raise_if_fatal
from grpo_gsm8k.runtime.router import Router
from grpo_gsm8k.transport.protocol import (
    Crashed,
    Failed,
    GroupResult,
    Heartbeat,
    Ready,
    Span,
    StartEngine,
    WeightsDamaged,
    WeightsLive,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpo_gsm8k.runtime.process import Worker
    from grpo_gsm8k.runtime.restarts import Restarts
    from grpo_gsm8k.transport.protocol import WeightsRef


class ActorPool:
    """Starts actors, replaces those that die or get stuck, and gives their requests to the replacement."""

    def __init__(
        self,
        size: int,
        spawn: Callable[[int], Worker],
        restarts: Restarts,
        to_learner: Callable[[object], None],
        delete: Callable[[WeightsRef], None],
        discard: Callable[[WeightsRef], None],
        repeat_bundles: bool = False,
    ) -> None:
        """Start nothing yet. `spawn` takes an index; for the arguments from `to_learner` on see `Router`."""
        self.router = Router(size, self._send, to_learner, delete, discard, repeat_bundles)
        self.actors: list[Worker] = []
        self._size = size
        self._spawn = spawn
        self._restarts = restarts
        self._engines_started = False
        self._start_at: dict[int, float] = {}  # by index: when the replacement of an ended actor is started

    def start(self) -> None:
        """Start the actors: they import their libraries, then wait for `start_engines`."""
        for index in range(self._size):
            self.actors.append(self._started(index))

    def start_engines(self) -> None:
        """Let all actors build their engines, replacements included. Does nothing when called again."""
        if not self._engines_started:
            self._engines_started = True
            for worker in self.actors:
                worker.release(StartEngine())

    def handle(self, worker: Worker, message: object) -> None:
        """Take a message of an actor; None is the end of its channel. Messages of replaced actors are ignored.

        Raises LabError if the actor died and must not be replaced.
        """
        if worker not in self.actors or self.actors.index(worker) in self._start_at:
            return
        worker.observe(message)
        match message:
            case None:
                self._replace(worker, "")
            case GroupResult() | Failed() | WeightsLive() | WeightsDamaged():
                self.router.from_actor(self.actors.index(worker), message)
            case Ready() | Heartbeat() | Crashed() | Span():  # `observe` has noted them; the caller records spans
                pass
            case _:
                raise TypeError(f"unexpected {type(message).__name__} from {worker.name}")

    def replace_overdue(self) -> None:
        """Replace actors that are stuck, and start replacements that are due. Raises LabError if one must not be."""
        for index, worker in enumerate(self.actors):
            if index not in self._start_at and (reason := worker.overdue()):
                self._replace(worker, reason)
        for index in [index for index, due in self._start_at.items() if time.monotonic() >= due]:
            self._start_replacement(index)

    def note_update(self, step: int) -> None:
        """Take note that the run has done update `step`, see `Restarts`."""
        self._restarts.note_update(step)

    def excuse(self) -> None:
        """Let the deadlines of all actors begin again."""
        for worker in self.actors:
            worker.excuse()

    def _replace(self, worker: Worker, overdue: str) -> None:
        """End an actor; its replacement is started at once, or after a crash by a later `replace_overdue`."""
        worker.kill()
        raise_if_fatal(worker)
        delay_s = self._restarts.note_failure(worker, overdue, progressed=worker.ready)
        index = self.actors.index(worker)
        self._start_at[index] = time.monotonic() + delay_s
        if not delay_s:
            self._start_replacement(index)

    def _start_replacement(self, index: int) -> None:
        del self._start_at[index]
        self.actors[index] = self._started(index)
        self.router.actor_restarted(index)

    def _started(self, index: int) -> Worker:
        worker = self._spawn(index)
        worker.held = True
        self._restarts.note_start(worker)
        if self._engines_started:
            worker.release(StartEngine())
        return worker

    def _send(self, index: int, message: object) -> None:
        if index < len(self.actors) and index not in self._start_at:
            self.actors[index].channel.send(message)
