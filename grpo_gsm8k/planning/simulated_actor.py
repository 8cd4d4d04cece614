"""The real actor's loop around a simulated engine, one turn whenever something happens."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, cast

from grpo_gsm8k.actor.loop import Actor
from grpo_gsm8k.actor.run_actor import few_beside
from grpo_gsm8k.planning.simulated_engine import SimulatedEngine
from grpo_gsm8k.transport.protocol import Heartbeat
from grpo_gsm8k.transport.weights import Canary, VerifiedWeights

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpo_gsm8k.actor.verifier import Verifier
    from grpo_gsm8k.planning.rates import Pipeline
    from grpo_gsm8k.planning.simulated_clock import SimulatedClock
    from grpo_gsm8k.transport.channel import Channel
    from grpo_gsm8k.transport.protocol import WeightsRef


class SimulatedVerifier:
    """Takes `verify_s` for each version, as `Verifier` does in its thread."""

    def __init__(self, seconds: float, clock: SimulatedClock, wake: Callable[[], None]) -> None:
        """`wake` is called when a version is verified."""
        self._seconds = seconds
        self._clock = clock
        self._wake = wake
        self._ref: WeightsRef | None = None
        self._done_at = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether a version was started and not yet taken or dropped."""
        return self._ref is not None

    def start(self, ref: WeightsRef) -> None:
        """Begin to verify `ref`, instead of the version that was started before."""
        self._ref, self._done_at = ref, self._clock() + self._seconds
        self._clock.at(self._done_at, self._wake)

    def wait(self, seconds: float) -> None:
        """Return at once: `wake` is called later."""

    def take(self) -> VerifiedWeights | None:
        """Return the verified weights once; None before their time."""
        if self._ref is None or self._clock() < self._done_at:
            return None
        ref, self._ref = self._ref, None
        return VerifiedWeights(ref, "model", Canary((), ()), self._seconds)

    def drop(self) -> None:
        """Forget the version that was started."""
        self._ref = None


class Inbox:
    """The actor's end of its channel: messages that have arrived, and `send` for its own."""

    def __init__(self, send: Callable[[object], None]) -> None:
        """Nothing has arrived."""
        self.messages: deque[object] = deque()
        self._send = send

    def send(self, message: object) -> None:
        """Send a message; heartbeats have no receiver here."""
        if not isinstance(message, Heartbeat):
            self._send(message)

    def receive(self, timeout: float) -> object | None:
        """Return the next message that has arrived, or None; never waits."""
        return self.messages.popleft() if self.messages else None


class SimulatedActor:
    """One actor: its loop takes a turn when a message arrives, weights are verified, or the engine has a result."""

    def __init__(self, pipeline: Pipeline, device: str, clock: SimulatedClock, send: Callable[[object], None]) -> None:
        """`send` takes the actor's messages; on the device `cpu` less urgent requests wait, as in a real run."""
        self.engine = SimulatedEngine(pipeline.engine, pipeline.lengths, clock)
        self._clock = clock
        self._inbox = Inbox(send)
        self._woken = 0  # counts the plans to wake up: only the last one holds
        verifier = SimulatedVerifier(pipeline.engine.verify_s, clock, self._turn)
        few = few_beside(device, pipeline.engine.max_sequences)
        self._actor = Actor(
            self.engine,
            cast("Channel", self._inbox),
            few=few,
            verifier=cast("Verifier", verifier),
            clock=clock,
        )

    def deliver(self, message: object) -> None:
        """Take a message that has arrived."""
        self._inbox.messages.append(message)
        self._turn()

    def _turn(self) -> None:
        """Take turns of the loop until one has neither a message nor a result: each may let other requests start."""
        before = -1
        while self._inbox.messages or self.engine.results > before:
            before = self.engine.results
            self._actor.turn()
        self._plan()

    def _plan(self) -> None:
        """Wake up at the engine's next event."""
        self._woken += 1
        due, plan = self.engine.next_event, self._woken
        if due is not None:
            self._clock.at(due, lambda: self._wake(plan))

    def _wake(self, plan: int) -> None:
        if plan != self._woken:
            return
        if self.engine.has_results:
            self._turn()
        else:
            self._plan()
