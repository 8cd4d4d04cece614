"""Starts the workers, keeps them alive or replaces them, routes their messages, and ends them all."""

from __future__ import annotations

import queue
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import LabError, UserError, WorkerError
from grpo_gsm8k.runtime.router import Hub
from grpo_gsm8k.transport.protocol import (
    Bundle,
    CheckpointSaved,
    Crashed,
    Failed,
    Finished,
    GroupResult,
    Heartbeat,
    OutOfMemory,
    Ready,
    Resumed,
    Span,
    StepDone,
    Stop,
    ValidationDone,
    WeightsLive,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from grpo_gsm8k.orchestrator.budget import Meter
    from grpo_gsm8k.orchestrator.regression import RegressionSuite
    from grpo_gsm8k.runtime.process import Deliver, Worker
    from grpo_gsm8k.tracking.ledger import Ledger
    from grpo_gsm8k.tracking.tracker import Tracker
    from grpo_gsm8k.transport.protocol import WeightsRef

POLL_SECONDS = 0.2
EXIT_SECONDS = 10.0  # a worker that said goodbye may take so long to be gone
BACKOFF_SECONDS = 0.5  # a dead process's GPU memory comes back late; doubled at every restart


@dataclass(frozen=True, slots=True)
class Limits:
    """How often each kind of worker may be replaced, and the grace period of a stop, in seconds."""

    actor_restarts: int
    learner_restarts: int
    stop_grace_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: updates done, the signal that ended it early (0: none), or else its budget, or a regression."""

    step: int
    signal: int
    over_budget: bool = False
    regressed: bool = False


@dataclass(frozen=True)
class Spawners:
    """How to start each worker; `learner` takes the incarnation, `actor` its index."""

    actor: Callable[[int, Deliver], Worker]
    learner: Callable[[int, Deliver], Worker]
    actors: int


class Supervisor:
    """The orchestrator's main loop, in one thread; channels deliver into its queue."""

    def __init__(
        self,
        spawners: Spawners,
        limits: Limits,
        tracker: Tracker,
        ledger: Ledger,
        meter: Meter,
        suite: RegressionSuite,
    ) -> None:
        """Starts nothing yet."""
        self._spawners = spawners
        self._limits = limits
        self._tracker = tracker
        self._ledger = ledger
        self._suite = suite
        self._meter = meter
        self._events: queue.SimpleQueue[tuple[Worker, object]] = queue.SimpleQueue()
        self._actors: list[Worker] = []
        self._learner: Worker | None = None
        self._hub = Hub(spawners.actors, self._to_actor, self._to_learner, _delete)
        self._restarts = {"actor": 0, "learner": 0}
        self._last_words: dict[Worker, Crashed] = {}
        self._finished: Finished | None = None
        self._signal = 0
        self._regressed = False  # so much that the run was told to stop
        self._over_budget = False
        self._stop_by = float("inf")
        self._busy_before = (0.0, 0.0)

    def run(self) -> Outcome:
        """Run to the end. Raises a LabError when a worker cannot be kept alive or reports a fatal error."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._start_learner(0)
            while self._finished is None and time.monotonic() < self._stop_by:
                self._handle_next()
                self._replace_stuck()
                self._watch_regressions()
                self._mind_the_budget()
            self._suite.finish(lambda: bool(self._signal or self._over_budget))
            return self._outcome()
        finally:
            self._end_workers()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _deliver(self, worker: Worker, message: object) -> None:
        self._events.put((worker, message))

    def _handle_next(self) -> None:
        try:
            worker, message = self._events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return
        if worker is not self._learner and worker not in self._actors:
            return  # of a worker that was replaced
        worker.heard(message)
        if isinstance(message, Crashed):
            self._last_words[worker] = message
        elif message is None:
            self._lost(worker, "")
        elif worker is self._learner:
            self._from_learner(message)
        else:
            self._from_actor(worker, message)

    def _from_learner(self, message: object) -> None:
        match message:
            case Bundle():
                self._hub.from_learner(message)
            case StepDone(step, metrics, prompts):
                self._ledger.record(step, prompts)
                self._tracker.step(step, {**metrics, **self._actor_idle()})
                if line := self._meter.observe(step, metrics["time/step_s"]):
                    self._tracker.note(line)
            case ValidationDone(version, metrics):
                self._tracker.validation(version, metrics)
            case CheckpointSaved(step, path):
                self._tracker.event("checkpoint", step=step, path=path)
                self._suite.saved(step, Path(path))
            case OutOfMemory(tokens, reason):
                self._tracker.out_of_memory(tokens, reason)
            case Resumed(step):
                self._ledger.rollback(step)
                self._tracker.rollback(step)
            case Finished():
                self._finished = message
            case Span():
                self._tracker.span("learner", message)
            case Ready():
                self._start_actors()
            case Heartbeat():
                pass
            case _:
                raise TypeError(f"unexpected {type(message).__name__} from the learner")

    def _from_actor(self, worker: Worker, message: object) -> None:
        match message:
            case GroupResult() | Failed() | WeightsLive():
                if not self._busy_before[1]:  # idle time counts from the first weights on, not from the engine's start
                    self._actor_idle()
                self._hub.from_actor(self._actors.index(worker), message)
            case Span():
                self._tracker.span(worker.name, message)
            case Ready() | Heartbeat():
                pass
            case _:
                raise TypeError(f"unexpected {type(message).__name__} from {worker.name}")

    def _start_actors(self) -> None:
        """Once the learner has checked the configuration; a restarted learner finds them warm."""
        while len(self._actors) < self._spawners.actors:
            self._actors.append(self._started(self._spawners.actor(len(self._actors), self._deliver)))
        if self._signal or self._over_budget:
            self._to_learner(Stop())

    def _start_learner(self, incarnation: int) -> None:
        self._learner = self._started(self._spawners.learner(incarnation, self._deliver))

    def _started(self, worker: Worker) -> Worker:
        self._tracker.event("worker_started", worker=worker.name, pid=worker.process.pid)
        return worker

    def _replace_stuck(self) -> None:
        for worker in [*self._actors, *([self._learner] if self._learner else [])]:
            reason = worker.overdue()
            if reason:
                self._lost(worker, reason)

    def _lost(self, worker: Worker, reason: str) -> None:
        """A worker died or is stuck: end it, and replace it unless that is pointless."""
        worker.kill()
        if self._finished is not None:
            return
        words = self._last_words.pop(worker, None)
        if words is not None and words.fatal:
            raise (UserError if words.user_error else LabError)(words.error)
        why = reason or (words.error if words else f"exit code {worker.process.exitcode}")
        kind = "learner" if worker is self._learner else "actor"
        if kind == "learner" and self._signal:
            self._stop_by = 0.0
            return
        self._restarts[kind] += 1
        allowed = self._limits.learner_restarts if kind == "learner" else self._limits.actor_restarts
        self._tracker.event(f"{kind}_restarted", worker=worker.name, reason=why, restart=self._restarts[kind])
        if self._restarts[kind] > allowed:
            raise WorkerError(f"{worker.name} failed {self._restarts[kind]} times (limit {kind}.max_restarts): {why}")
        if words is not None:
            time.sleep(BACKOFF_SECONDS * 2 ** (self._restarts[kind] - 1))
        self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        if worker is self._learner:
            self._hub.learner_restarted()
            self._start_learner(self._restarts["learner"])
        else:
            index = self._actors.index(worker)
            self._actors[index] = self._started(self._spawners.actor(index, self._deliver))
            self._hub.actor_restarted(index)

    def _actor_idle(self) -> dict[str, float]:
        """Share of the time since the last step in which the actors had nothing to do, by their own clocks.

        Empty when no heartbeat came since, or an actor was replaced.
        """
        busy = sum(actor.beat.busy_s for actor in self._actors)
        clock = sum(actor.beat.clock for actor in self._actors)
        busy_before, clock_before = self._busy_before
        if clock == clock_before:
            return {}
        self._busy_before = busy, clock
        if not clock_before or busy < busy_before:
            return {}
        return {"time/actor_idle_frac": min(1.0, max(0.0, 1 - (busy - busy_before) / (clock - clock_before)))}

    def _watch_regressions(self) -> None:
        if self._suite.poll() and not self._regressed:
            self._regressed = True
            self._to_learner(Stop())

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        """First signal: finish the update and save. Second: stop now, the last checkpoint stands."""
        if self._signal:
            self._stop_by = 0.0
            return
        self._signal = number
        self._stop_by = time.monotonic() + self._limits.stop_grace_s
        if self._learner is not None and self._learner.ready:
            self._to_learner(Stop())
        else:
            self._stop_by = 0.0  # nothing was trained yet

    def _mind_the_budget(self) -> None:
        """When it is used up: finish the update and save, as after a first signal."""
        if self._signal or self._over_budget or self._learner is None or not self._learner.ready:
            return
        if reason := self._meter.used_up():
            self._over_budget = True
            self._tracker.event("over_budget", reason=reason)
            self._tracker.note(f"{reason}: the run stops after a checkpoint")
            self._to_learner(Stop())

    def _outcome(self) -> Outcome:
        if self._finished is None:
            return Outcome(step=-1, signal=self._signal)
        regressed = self._suite.poll()
        if not self._finished.stopped:
            return Outcome(self._finished.step, 0, regressed=regressed)
        over_budget = self._over_budget and not self._signal
        return Outcome(self._finished.step, self._signal, over_budget, regressed and not self._signal)

    def _to_actor(self, index: int, message: object) -> None:
        if index < len(self._actors):
            self._actors[index].channel.send(message)

    def _to_learner(self, message: object) -> None:
        if self._learner is not None:
            self._learner.channel.send(message)

    def _end_workers(self) -> None:
        workers = [*self._actors, *([self._learner] if self._learner else [])]
        for worker in workers:
            if self._finished is not None:
                worker.channel.send(Stop())
        deadline = time.monotonic() + EXIT_SECONDS
        for worker in workers:
            if self._finished is not None:
                worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.kill()


def _delete(ref: WeightsRef) -> None:
    shutil.rmtree(ref.path, ignore_errors=True)
