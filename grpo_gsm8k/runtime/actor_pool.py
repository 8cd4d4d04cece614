"""The actors of one run, each replaced at its index when it fails, and the router of their requests.

The number of actors may change while the run goes on, and an actor may have no place for a while, because its machine
has left the cluster. The others then do its requests.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from grpo_gsm8k.runtime.restarts import raise_if_fatal
from grpo_gsm8k.runtime.router import Router
from grpo_gsm8k.transport.protocol import (
    Connected,
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


PLACE_SECONDS = 2.0  # between two searches of a place for an actor that has none


class ActorPool:
    """Starts actors, replaces those that die or get stuck, and gives their requests to the replacement."""

    def __init__(
        self,
        size: int,
        spawn: Callable[[int], Worker | None],
        restarts: Restarts,
        to_learner: Callable[[object], None],
        delete: Callable[[WeightsRef], None],
        discard: Callable[[WeightsRef], None],
        repeat_bundles: bool = False,
    ) -> None:
        """Start nothing yet; for the arguments from `to_learner` on see `Router`.

        `spawn` takes an index; it returns None if there is no place for another actor now.
        """
        self.router = Router(size, self._send, to_learner, delete, discard, repeat_bundles)
        self._workers: dict[int, Worker] = {}  # by index
        self._size = size
        self._spawn = spawn
        self._restarts = restarts
        self._engines_started = False
        self._start_at: dict[int, float] = {}  # by index: when the replacement of an ended actor is started

    @property
    def actors(self) -> list[Worker]:
        """The actors that were started and are not known to have ended, by index."""
        return [self._workers[index] for index in sorted(self._workers)]

    @property
    def size(self) -> int:
        """Number of actors that the run is to have, those without a place included."""
        return self._size

    def start(self) -> None:
        """Start the actors: they import their libraries, then wait for `start_engines`."""
        for index in range(self._size):
            if not self._start(index):
                self.router.actor_left(index)

    def start_engines(self) -> None:
        """Let all actors build their engines, replacements included. Does nothing when called again."""
        if not self._engines_started:
            self._engines_started = True
            for worker in self.actors:
                worker.release(StartEngine())

    def resize(self, size: int) -> None:
        """Start or end actors, those with the highest indices first; the requests of the ended go to the others.

        Raises UserError for the first one that cannot be started; those before it stay.
        """
        for index in range(size, self._size):
            self._start_at.pop(index, None)
            if (worker := self._workers.pop(index, None)) is not None:
                worker.kill()
            self.router.actor_left(index)
        self._size = min(size, self._size)
        for index in range(self._size, size):
            self._start_replacement(index)
            self._size = index + 1

    def handle(self, worker: Worker, message: object) -> None:
        """Take a message of an actor; None is the end of its channel. Messages of replaced actors are ignored.

        Raises LabError if the actor died and must not be replaced.
        """
        index = next((index for index, known in self._workers.items() if known is worker), None)
        if index is None:
            return
        worker.observe(message)
        match message:
            case None:
                self._replace(index, worker, "")
            case GroupResult() | Failed() | WeightsLive() | WeightsDamaged():
                self.router.from_actor(index, message)
            case (
                Ready() | Heartbeat() | Crashed() | Span() | Connected()
            ):  # `observe` has noted them; the caller records spans
                pass
            case _:
                raise TypeError(f"unexpected {type(message).__name__} from {worker.name}")

    def replace_overdue(self) -> None:
        """Replace actors that are stuck, and start replacements that are due. Raises LabError if one must not be."""
        for index, worker in list(self._workers.items()):
            if reason := worker.overdue():
                self._replace(index, worker, reason)
        for index in [index for index, due in self._start_at.items() if time.monotonic() >= due]:
            self._start_replacement(index)

    def note_update(self, step: int) -> None:
        """Take note that the run has done update `step`, see `Restarts`."""
        self._restarts.note_update(step)

    def excuse(self) -> None:
        """Let the deadlines of all actors begin again."""
        for worker in self.actors:
            worker.excuse()

    def _replace(self, index: int, worker: Worker, overdue: str) -> None:
        """End an actor; its replacement is started at once, or after a crash by a later `replace_overdue`."""
        worker.kill()
        raise_if_fatal(worker)
        del self._workers[index]
        if worker.machine_lost:
            self._restarts.note_lost(worker)
            self._start_replacement(index)
            return
        delay_s = self._restarts.note_failure(worker, overdue, progressed=worker.ready)
        if delay_s:
            self._start_at[index] = time.monotonic() + delay_s
        else:
            self._start_replacement(index)

    def _start_replacement(self, index: int) -> None:
        if self._start(index):
            self.router.actor_restarted(index)
        else:
            self.router.actor_left(index)

    def _start(self, index: int) -> bool:
        """Start an actor; returns False, and looks again later, if there is no place for it now."""
        worker = self._spawn(index)
        if worker is None:
            self._start_at[index] = time.monotonic() + PLACE_SECONDS
            return False
        self._start_at.pop(index, None)
        self._workers[index] = worker
        worker.held = True
        self._restarts.note_start(worker)
        if self._engines_started:
            worker.release(StartEngine())
        return True

    def _send(self, index: int, message: object) -> None:
        if (worker := self._workers.get(index)) is not None:
            worker.channel.send(message)
