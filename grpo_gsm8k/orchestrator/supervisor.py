"""The orchestrator's main loop: start, watch and replace workers, route and record their messages, end the run."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.orchestrator.host_memory import memory_metrics
from grpo_gsm8k.orchestrator.idle import IdleTime
from grpo_gsm8k.orchestrator.scaling import scale
from grpo_gsm8k.orchestrator.signals import catch_signals, restore_signals
from grpo_gsm8k.runtime.actor_pool import ActorPool
from grpo_gsm8k.runtime.process import EventQueue, end_workers
from grpo_gsm8k.runtime.restarts import Restarts, raise_if_fatal
from grpo_gsm8k.transport.protocol import (
    Bundle,
    CheckpointSaved,
    CheckpointsDeleted,
    Connected,
    Crashed,
    Failed,
    Finished,
    GroupResult,
    Heartbeat,
    OutOfMemory,
    Ready,
    Recorded,
    Resumed,
    RewardFailed,
    Span,
    StepDone,
    Stop,
    ValidationDone,
    ValidationStarted,
    WeightsDamaged,
    WeightsLive,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from grpo_gsm8k.orchestrator.budget import RunBudget
    from grpo_gsm8k.orchestrator.regression import RegressionSuite
    from grpo_gsm8k.orchestrator.start_phases import StartPhases
    from grpo_gsm8k.runtime.process import Deliver, Worker
    from grpo_gsm8k.tracking.ledger import Ledger
    from grpo_gsm8k.tracking.tracker import Tracker
    from grpo_gsm8k.transport.protocol import WeightsRef

PAUSE_SECONDS = 5.0  # a turn of the loop takes at most a second, so this process was stopped, or its machine
EXIT_SECONDS = 10.0  # for all workers of a finished run to exit before they are killed
BACKOFF_SECONDS = 0.5  # the GPU memory of a dead process is released late; doubled at every restart


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """How often each kind of worker may be replaced, and the grace period of a stop, in seconds.

    `repeat_bundles`: whether a new actor repeats finished requests, too, see `Router`.
    """

    actor_restarts: int
    learner_restarts: int
    stop_grace_s: float
    repeat_bundles: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: updates done, the signal that ended it (0: none), or else its budget, or a regression."""

    step: int
    signal: int
    over_budget: bool = False
    regressed: bool = False


@dataclass(frozen=True)
class Spawners:
    """How to start each worker: `actor` takes its index, `learner` its incarnation and the weights still in use.

    `delete` and `discard` as for `Router`.
    """

    actor: Callable[[int, Deliver], Worker | None]
    learner: Callable[[int, Sequence[WeightsRef], Deliver], Worker]
    actors: int
    delete: Callable[[WeightsRef], None]
    discard: Callable[[WeightsRef], None]


class Supervisor:
    """Runs in one thread; the channels' threads deliver messages into its event queue."""

    def __init__(
        self,
        spawners: Spawners,
        limits: RestartLimits,
        tracker: Tracker,
        ledger: Ledger,
        budget: RunBudget,
        suite: RegressionSuite,
        phases: StartPhases,
    ) -> None:
        """Start nothing yet."""
        self._tracker = tracker
        self._ledger = ledger
        self._suite = suite
        self._phases = phases
        self._budget = budget
        self._stop_grace_s = limits.stop_grace_s
        self._events = EventQueue()
        self._pool = ActorPool(
            spawners.actors,
            lambda index: spawners.actor(index, self._events.deliver),
            Restarts("actor", limits.actor_restarts, tracker.worker_event, BACKOFF_SECONDS),
            self._to_learner,
            spawners.delete,
            spawners.discard,
            limits.repeat_bundles,
        )
        self._spawn_learner = spawners.learner
        self._learner: Worker | None = None
        self._updated = False  # whether the present learner has done an update
        self._learner_restarts = Restarts("learner", limits.learner_restarts, tracker.worker_event, BACKOFF_SECONDS)
        self._idle = IdleTime()
        self._finished: Finished | None = None
        self._signal = 0
        self._signal_shown = False
        self._regressed = False  # the run was asked to stop because of a regression
        self._over_budget = False
        self._stop_by = float("inf")
        self._awake = time.monotonic()  # when the loop began its present turn
        self._learner_start_at = 0.0  # when the replacement of a learner that crashed is started

    def run(self) -> Outcome:
        """Run to the end. Raises a LabError when a worker fails too often or reports a fatal error."""
        before = catch_signals(self._on_signal)
        try:
            self._start_learner()
            self._pool.start()
            while self._finished is None and time.monotonic() < self._stop_by:
                if event := self._events.next():
                    self._handle(*event)
                self._show_signal()
                self._excuse_after_a_pause()
                self._replace_overdue()
                scale(self._pool, self._tracker)
                self._check_regressions()
                self._check_budget()
            self._suite.finish(lambda: bool(self._signal or self._over_budget))
            return self._outcome()
        finally:
            workers = [*self._pool.actors, *([self._learner] if self._learner else [])]
            end_workers(workers, grace_s=0.0 if self._finished is None else EXIT_SECONDS)
            restore_signals(before)

    def _handle(self, worker: Worker, message: object) -> None:
        if worker is self._learner:
            worker.observe(message)
            if message is None:
                self._replace_learner("")
            else:
                self._from_learner(message)
        elif worker in self._pool.actors:
            if isinstance(message, Span):
                self._tracker.span(message.row or worker.name, message)
            elif isinstance(message, Connected):
                self._tracker.event("worker_connected", worker=worker.name, pid=message.pid, node=message.node)
            elif isinstance(message, GroupResult | Failed | WeightsLive):
                self._idle.start(self._pool.actors)
            elif isinstance(message, WeightsDamaged):
                self._tracker.damaged_weights(worker.name, message.ref.version, message.reason)
            self._pool.handle(worker, message)
            if isinstance(message, Ready | WeightsLive):
                ready = all(actor.ready for actor in self._pool.actors)
                self._phases.engine_state(ready, isinstance(message, WeightsLive))

    def _from_learner(self, message: object) -> None:
        self._phases.learner_message(message)
        match message:
            case Bundle():
                self._pool.router.from_learner(message)
            case StepDone(step, metrics, prompts):
                self._updated = True
                self._learner_restarts.note_update(step)
                self._pool.note_update(step)
                self._ledger.record(step, prompts)
                memory = memory_metrics(self._pool.actors, self._learner)
                self._tracker.step(step, {**metrics, **self._idle.metrics(self._pool.actors), **memory})
                if line := self._budget.observe(step, metrics["time/step_s"]):
                    self._tracker.note(line)
                self._to_learner(Recorded(step))
            case ValidationDone(version, metrics):
                self._tracker.validation(version, metrics)
            case CheckpointSaved(step, path):
                self._tracker.event("checkpoint", step=step, path=path)
                self._suite.saved(step, Path(path))
            case CheckpointsDeleted(steps, reason):
                self._tracker.event("checkpoints_deleted", steps=steps, reason=reason)
                self._tracker.note(f"checkpoints {', '.join(map(str, steps))} were deleted to make room: {reason}")
            case OutOfMemory(tokens, reason):
                self._tracker.out_of_memory(tokens, reason)
            case RewardFailed(part, reason):
                self._tracker.event("reward_failed", part=part, reason=reason)
                self._tracker.note(f"policy_gradient.rewards.{part} {reason}; it counts as 0 (rollout/reward_errors)")
            case Resumed(step, updates):
                self._ledger.rollback(step)
                self._tracker.set_total(updates)
                self._budget.set_total(updates)
                self._tracker.rollback(step)
            case Finished():
                self._finished = message
            case Span():
                self._tracker.span(message.row or "learner", message)
            case Ready():
                self._learner_ready()
            case Heartbeat() | Crashed() | ValidationStarted():
                pass
            case _:
                raise TypeError(f"unexpected {type(message).__name__} from the learner")

    def _learner_ready(self) -> None:
        """Start the engines: the learner has checked the configuration. After a learner restart they run already."""
        self._pool.start_engines()
        self._phases.engine_started()
        if self._signal or self._over_budget:
            self._to_learner(Stop())

    def _excuse_after_a_pause(self) -> None:
        """Let all deadlines begin again if this process was not awake: workers were not watched, or paused with it."""
        before, self._awake = self._awake, time.monotonic()
        pause_s = self._awake - before
        if pause_s < PAUSE_SECONDS:
            return
        self._tracker.event("paused", seconds=round(pause_s, 3))
        self._pool.excuse()
        if self._learner is not None:
            self._learner.excuse()
        self._stop_by += pause_s

    def _start_learner(self) -> None:
        self._updated = False
        self._phases.learner_started()
        in_use = self._pool.router.published
        self._learner = self._spawn_learner(self._learner_restarts.count, in_use, self._events.deliver)
        self._learner_restarts.note_start(self._learner)

    def _replace_overdue(self) -> None:
        if self._finished is not None:
            return  # the workers end anyway
        self._pool.replace_overdue()
        if self._learner is None and time.monotonic() >= self._learner_start_at:
            self._start_learner()
        if self._learner is not None and (reason := self._learner.overdue()):
            self._replace_learner(reason)

    def _replace_learner(self, overdue: str) -> None:
        """End a learner that died or is stuck, and start another unless a signal has asked the run to stop."""
        assert self._learner is not None
        self._learner.kill()
        raise_if_fatal(self._learner)
        if self._signal:
            self._stop_by = 0.0
            return
        delay_s = self._learner_restarts.note_failure(self._learner, overdue, progressed=self._updated)
        self._pool.router.learner_restarted()
        self._learner, self._learner_start_at = None, time.monotonic() + delay_s

    def _check_regressions(self) -> None:
        if self._suite.poll() and not self._regressed:
            self._regressed = True
            self._to_learner(Stop())

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        """First signal: finish the update and save. Second: stop now, the last checkpoint is the result."""
        if self._signal:
            self._stop_by = 0.0
            return
        self._signal = number
        self._stop_by = time.monotonic() + self._stop_grace_s
        if self._learner is not None and self._learner.ready:
            self._to_learner(Stop())
        else:
            self._stop_by = 0.0  # no update was started, so there is nothing to save

    def _show_signal(self) -> None:
        """Say that the run is stopping; not in the signal handler, which may interrupt a write to the terminal."""
        if self._signal and not self._signal_shown:
            self._signal_shown = True
            name = signal.Signals(self._signal).name
            if self._stop_by > 0:
                self._tracker.note(f"{name}: stopping after this update and a checkpoint; again: stop at once")

    def _check_budget(self) -> None:
        """Stop after the current update and a checkpoint if the budget is used up, as after a first signal."""
        if self._signal or self._over_budget or self._learner is None or not self._learner.ready:
            return
        if reason := self._budget.used_up():
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

    def _to_learner(self, message: object) -> None:
        if self._learner is not None:
            self._learner.channel.send(message)
