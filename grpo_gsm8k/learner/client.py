"""The learner's end of its channel: bundles requests, files results, shows signs of life."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import LabError
from grpo_gsm8k.transport.protocol import Bundle, Failed, GroupResult, Heartbeat, LoadWeights, Span, Stop, WeightsLive

if TYPE_CHECKING:
    from grpo_gsm8k.transport.channel import Channel
    from grpo_gsm8k.transport.protocol import GenerateGroup, LearnerReport

BEAT_SECONDS = 0.5


class Client:
    """Requests go out in bundles; results wait here, by request id, until somebody takes them."""

    def __init__(self, channel: Channel, incarnation: int) -> None:
        """`incarnation` counts the learner's starts; it makes request ids of different learners differ."""
        self.incarnation = incarnation
        self.stop_requested = False
        self.live: WeightsLive | None = None
        self._channel = channel
        self._results: dict[str, GroupResult] = {}
        self._pending: list[GenerateGroup | LoadWeights] = []
        self._progress = 0
        self._waiting = False
        self._lap_started = time.monotonic()
        threading.Thread(target=self._beat_for_ever, name="heartbeat", daemon=True).start()

    def queue(self, message: GenerateGroup | LoadWeights) -> None:
        """Add a message to the bundle that the next `flush` sends."""
        self._pending.append(message)

    def flush(self) -> None:
        """Send what was queued as one bundle."""
        if self._pending:
            self._channel.send(Bundle(tuple(self._pending)))
            self._pending = []

    def report(self, message: LearnerReport) -> None:
        """Tell the orchestrator something."""
        self._channel.send(message)

    def lap(self, name: str, version: int) -> float:
        """Say what the time since the last lap was spent on; returns its seconds."""
        span = Span.since(name, version, self._lap_started)
        self._lap_started += span.seconds
        self.report(span)
        return span.seconds

    def take_ready(self, request_id: str) -> GroupResult | None:
        """The result of a request if it is here; never waits."""
        self._drain()
        return self._results.pop(request_id, None)

    def take(self, request_id: str) -> GroupResult | None:
        """The result of a request. Waits for it; None if the run is to stop first."""
        self._waiting = True
        while (result := self.take_ready(request_id)) is None and not self.stop_requested:
            self._handle(self._channel.receive(0.1))
        self._waiting = False
        return result

    def wait_until_live(self) -> None:
        """Wait for the engine's first report that it runs published weights, or for a stop request."""
        self._waiting = True
        while self.live is None and not self.stop_requested:
            self._handle(self._channel.receive(0.1))
        self._waiting = False

    def beat(self) -> None:
        """Some work was done."""
        self._progress += 1

    def _drain(self) -> None:
        while (message := self._channel.receive(0.0)) is not None:
            self._handle(message)

    def _handle(self, message: object | None) -> None:
        match message:
            case None:
                pass
            case GroupResult(request_id):
                self._results[request_id] = message
            case WeightsLive():
                self.live = message
            case Failed(request_id, error):
                raise LabError(f"the engine refused request {request_id}: {error}")
            case Stop():
                self.stop_requested = True
            case _:
                raise TypeError(f"a learner cannot handle {type(message).__name__}")

    def _beat_for_ever(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            self._channel.send(Heartbeat(self._progress, not self._waiting, 0.0, time.monotonic()))
