"""The learner's end of its channel: bundles requests, stores results, sends heartbeats."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from typing import TYPE_CHECKING, TypeVar

from grpo_gsm8k.errors import LabError
from grpo_gsm8k.transport.protocol import (
    Bundle,
    Cancel,
    Failed,
    GroupResult,
    Heartbeat,
    LoadWeights,
    PublishAgain,
    Recorded,
    Resumed,
    Span,
    Stop,
    WeightsLive,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from grpo_gsm8k.transport.channel import Channel
    from grpo_gsm8k.transport.protocol import GenerateGroup, LearnerReport

BEAT_SECONDS = 0.5
POLL_SECONDS = 0.02
T = TypeVar("T")


class Client:
    """Sends requests in bundles, and hands each result to whoever asked for it."""

    def __init__(
        self,
        channel: Channel,
        incarnation: int,
        clock: Callable[[], float] = time.monotonic,
        heartbeats: bool = True,
    ) -> None:
        """`incarnation` counts the starts of the learner process and makes request ids unique across them.

        The planner's simulation has a clock of its own, and sends no heartbeats.
        """
        self._clock = clock
        self.incarnation = incarnation
        self.stop_requested = False
        self.live: WeightsLive | None = None
        self.on_damaged: Callable[[PublishAgain], None] = _ignore
        self._damaged: list[PublishAgain] = []  # not answered yet
        self._recorded = 0  # the last update that the orchestrator has recorded
        self._recorded_more = threading.Condition()
        self._channel = channel
        self._on_result: dict[str, Callable[[GroupResult], None]] = {}  # by request id, until the result arrives
        self._pending: list[GenerateGroup | LoadWeights | Cancel] = []
        self._progress = 0
        self._waiting = False
        self._span_started = clock()
        if heartbeats:
            threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True).start()

    def queue(self, message: LoadWeights) -> None:
        """Add weights to the bundle that the next `flush` sends."""
        self._pending.append(message)

    def request(self, message: GenerateGroup, on_result: Callable[[GroupResult], None]) -> None:
        """Add a request to the bundle that the next `flush` sends.

        `on_result` gets the result, in the learner's thread: during the next `poll`, `beat` or `wait_until` after its
        arrival.
        """
        self._on_result[message.request_id] = on_result
        self._pending.append(message)

    def cancel(self, request_ids: Sequence[str]) -> None:
        """Add to the next bundle that these requests are not needed; results that are on their way are ignored."""
        unanswered = [request_id for request_id in request_ids if request_id in self._on_result]
        for request_id in unanswered:
            self._on_result[request_id] = _drop
        if unanswered:
            self._pending.append(Cancel(tuple(unanswered)))

    def flush(self) -> None:
        """Send the queued messages as one bundle."""
        if self._pending:
            self._channel.send(Bundle(tuple(self._pending)))
            self._pending = []

    def report(self, message: LearnerReport) -> None:
        """Send a report to the orchestrator."""
        if isinstance(message, Resumed):
            self._note_recorded(message.step)
        self._channel.send(message)

    def wait_until_recorded(self, step: int) -> None:
        """Wait, in another thread, until the orchestrator has recorded update `step`.

        The learner's thread learns of it in `poll`, `beat`, `wait_until` and `wait_for`.
        """
        with self._recorded_more:
            self._recorded_more.wait_for(lambda: self._recorded >= step)

    def _note_recorded(self, step: int) -> None:
        with self._recorded_more:
            self._recorded = max(self._recorded, step)
            self._recorded_more.notify_all()

    def record_span(self, name: str, version: int) -> float:
        """Report what the time since the last span was spent on; returns its seconds."""
        span = Span.since(name, version, self._span_started, clock=self._clock)
        self._span_started += span.seconds
        self.report(span)
        return span.seconds

    def poll(self) -> None:
        """Handle the messages that have arrived; never waits."""
        while (message := self._channel.receive(0.0)) is not None:
            self._handle(message)

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Handle messages until `condition` holds; False if the run has to stop first.

        Called between updates only: the weights are those of a version, so damaged ones are answered.
        """
        self._waiting = True
        self.poll()
        while not (held := condition()) and not self.stop_requested:
            self.answer_damaged()
            self._waiting = True  # the answer may have waited for other work
            self._handle(self._channel.receive(0.1))
        self._waiting = False
        return held

    def wait_for(self, work: Future[T]) -> T:
        """Return the result of work in another thread; meanwhile this process does not have to report progress.

        Messages are handled: the work may wait for one of them.
        """
        self._waiting = True
        try:
            while not wait([work], timeout=POLL_SECONDS).done:
                self.poll()
            return work.result()
        finally:
            self._waiting = False

    def answer_damaged(self) -> None:
        """Call `on_damaged` for the damaged weights reported since the last call."""
        while self._damaged:
            self.on_damaged(self._damaged.pop(0))

    def wait_until_live(self) -> None:
        """Wait until the engine runs published weights, or for a stop request."""
        self.wait_until(lambda: self.live is not None)

    def beat(self) -> None:
        """Count one unit of finished work, which the heartbeat reports as progress, and handle what has arrived."""
        self._progress += 1
        self.poll()

    def _handle(self, message: object | None) -> None:
        match message:
            case None:
                pass
            case GroupResult(request_id):
                self._on_result.pop(request_id)(message)
            case WeightsLive():
                self.live = message
            case Failed(request_id, error):
                raise LabError(f"the engine refused request {request_id}: {error}")
            case PublishAgain():
                self._damaged.append(message)
            case Recorded(step):
                self._note_recorded(step)
            case Stop():
                self.stop_requested = True
            case _:
                raise TypeError(f"a learner cannot handle {type(message).__name__}")

    def _send_heartbeats(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            self._channel.send(Heartbeat(self._progress, not self._waiting, 0.0, time.monotonic()))


def _drop(_: GroupResult) -> None:
    """Do nothing: the request was cancelled."""


def _ignore(_: PublishAgain) -> None:
    """Do nothing: before a session exists, the learner has not published anything."""
