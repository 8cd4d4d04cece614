"""The actor's main loop: take commands, swap weights, step the engine, send results.

New weights are verified in a thread while the engine goes on with its running requests.
"""

from __future__ import annotations

import bisect
import time
from typing import TYPE_CHECKING

from grpo_gsm8k.actor.rest import Rest
from grpo_gsm8k.actor.verifier import Verifier
from grpo_gsm8k.faults import hook
from grpo_gsm8k.transport.protocol import (
    Bundle,
    Cancel,
    Failed,
    GenerateGroup,
    Heartbeat,
    LoadWeights,
    Ready,
    Reset,
    Span,
    Stop,
    WeightsDamaged,
    WeightsLive,
    WeightsRef,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpo_gsm8k.actor.engine import Engine
    from grpo_gsm8k.transport.channel import Channel

BEAT_SECONDS = 0.2
IDLE_WAIT_SECONDS = 0.05


class Actor:
    """State of one actor: waiting and running requests, and weights to load."""

    def __init__(
        self,
        engine: Engine,
        channel: Channel,
        own_version: int = -1,
        few: int | None = None,
        sleeps: bool = False,
        verifier: Verifier | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`channel` leads to the orchestrator; for `own_version` see `EngineSpec`.

        A request waits while more than `few` sequences of more urgent requests are running. None: it starts at once,
        and the engine serves the most urgent ones first. `sleeps`: see `Rest`. The planner's simulation has a
        verifier and a clock of its own.
        """
        self._clock = clock
        self._engine = engine
        self._channel = channel
        self._few = few
        self._version = own_version
        self._rest = Rest(engine, channel, sleeps)
        self._canary_pending = False  # weights were loaded, the engine has not yet returned WeightsLive
        self._loads: list[WeightsRef] = []  # published, not yet loaded, by version
        self._damaged: set[int] = set()  # versions that were refused, and may be published again
        self._verifier = Verifier() if verifier is None else verifier  # of the version to load next
        self._waiting: dict[str, GenerateGroup] = {}  # until their weight version is live
        self._running: dict[str, GenerateGroup] = {}
        self._steps = 0
        self._busy_s = 0.0
        self._last_beat = 0.0
        self._stopping = False
        self._generating_since: float | None = None

    def run(self) -> None:
        """Serve until a `Stop` command."""
        self._channel.send(Ready())
        while not self._stopping:
            self.turn()

    def turn(self) -> None:
        """Take the commands that have arrived, swap weights if that is due, and do one engine step if there is work."""
        self._take_commands()
        started = self._clock()
        if not self._swap_weights():
            self._admit()
        if self._running or self._canary_pending:
            self._step()
        if not self._has_work():
            self._rest.begin()
        self._busy_s += self._clock() - started
        self._beat()

    def _take_commands(self) -> None:
        """Handle all commands that have arrived; wait up to IDLE_WAIT_SECONDS when there is nothing else to do."""
        busy = self._running or self._canary_pending or (self._loads and not self._needs_damaged())
        if self._verifier.is_busy:
            if not busy:
                self._verifier.wait(IDLE_WAIT_SECONDS)
            busy = True
        message = self._channel.receive(0.0 if busy else IDLE_WAIT_SECONDS)
        while message is not None:
            self._handle(message)
            message = self._channel.receive(0.0)

    def _handle(self, message: object) -> None:
        match message:
            case Bundle(messages):
                for item in messages:
                    self._handle(item)
            case GenerateGroup():
                self._waiting[message.request_id] = message
            case Cancel(request_ids):
                self._cancel(request_ids)
            case LoadWeights(ref):
                self._damaged.discard(ref.version)
                bisect.insort(self._loads, ref, key=lambda published: published.version)
            case Reset():
                self._reset()
            case Stop():
                self._stopping = True
            case _:
                raise TypeError(f"an actor cannot handle {type(message).__name__}")

    def _cancel(self, request_ids: Sequence[str]) -> None:
        """Drop these requests; those that are unknown here have ended meanwhile."""
        running = [request_id for request_id in request_ids if self._running.pop(request_id, None) is not None]
        if running:
            self._engine.abort(running)
        for request_id in request_ids:
            self._waiting.pop(request_id, None)
        if not self._running:
            self._end_span()

    def _reset(self) -> None:
        """Drop the old learner's work. No version counts as live, so nothing starts before new weights arrive."""
        self._end_span()
        self._engine.abort(list(self._running))
        self._waiting.clear()
        self._running.clear()
        self._loads.clear()
        self._damaged.clear()
        self._verifier.drop()
        self._rest.drop_results()
        self._version = -1

    def _must_keep_version(self) -> bool:
        """Whether nothing may be swapped: before the canary's result, or while a pinned request needs the live version.

        A pinned request is generated entirely with one version.
        """
        pinned = any(r.pinned for r in self._running.values())
        waits = any(r.pinned and r.min_version == self._version for r in self._waiting.values())
        return self._canary_pending or pinned or waits

    def _swap_weights(self) -> bool:
        """Verify the newest published weights, or the oldest that a pinned request still needs, then load them.

        Returns whether a swap is being prepared. Running requests then go on, but no new ones start: they are to begin
        with the new weights. Damaged weights are reported, and the engine keeps the version that it has.
        """
        if self._must_keep_version() or self._needs_damaged():
            return False
        if self._running and self._goes_back():
            return True
        if not self._verifier.is_busy and (ref := self._next_load()) is not None:
            self._verifier.start(ref)
        verified = self._verifier.take()
        if isinstance(verified, WeightsDamaged):
            self._damaged.add(verified.ref.version)
            self._channel.send(verified)
            return False
        if verified is None:
            return self._verifier.is_busy
        self._end_span()
        self._rest.end()
        started = self._clock()
        hook("swap.verified", verified.folder.name)
        self._engine.load(verified)
        hook("swap.loaded", verified.folder.name)
        self._channel.send(Span.since("load", verified.ref.version, started, clock=self._clock))
        self._canary_pending = True
        self._version = verified.ref.version
        return False

    def _needs_damaged(self) -> bool:
        """Whether a pinned request needs a damaged version: no later one is loaded before it is published again."""
        return any(r.pinned and r.min_version in self._damaged for r in self._waiting.values())

    def _goes_back(self) -> bool:
        """Whether an older version is loaded next, for a pinned request of another actor that has left.

        That waits until nothing runs: running requests may only ever see newer weights.
        """
        older = {ref.version for ref in self._loads if ref.version < self._version}
        return any(r.pinned and r.min_version in older for r in self._waiting.values())

    def _next_load(self) -> WeightsRef | None:
        """Return the oldest version that a pinned request needs, else the newest; None if that is live already."""
        pinned = [r.min_version for r in self._waiting.values() if r.pinned]
        first = self._version if self._goes_back() else self._version + 1  # after an older one, the live one again
        self._loads = [ref for ref in self._loads if ref.version >= first or ref.version in pinned]
        while len(self._loads) > 1 and self._loads[0].version not in pinned:
            del self._loads[0]  # superseded before any request needed it
        return self._loads.pop(0) if self._loads else None

    def _admit(self) -> None:
        """Start the waiting requests whose weight version is live, the most urgent first."""
        for request in self._startable():
            del self._waiting[request.request_id]
            self._rest.end()
            try:
                self._engine.add(request)
            except ValueError as error:  # the engine refused this request; the others continue
                self._channel.send(Failed(request.request_id, str(error)))
            else:
                self._running[request.request_id] = request

    def _startable(self) -> list[GenerateGroup]:
        """Return the waiting requests that may start now."""
        live = [r for r in self._waiting.values() if _fits(r, self._version)]
        if self._few is None or not live:
            return live
        # Both the running ones and those that start now count as more urgent than the next.
        candidates = sorted(live, key=lambda r: r.priority)
        ahead = [(r.priority, r.n) for r in (*self._running.values(), *candidates)]
        held = {p for p in {r.priority for r in live} if sum(n for other, n in ahead if other < p) > self._few}
        return [r for r in candidates if r.priority not in held]

    def _step(self) -> None:
        if self._running and self._generating_since is None:
            self._generating_since = self._clock()
        for result in self._engine.step():
            if isinstance(result, WeightsLive):
                self._canary_pending = False
            else:
                self._running.pop(result.request_id, None)
            self._rest.send(result)
        self._steps += 1
        hook("engine.step")
        if not self._running:
            self._end_span()

    def _has_work(self) -> bool:
        """Whether anything runs, is being loaded, or may start now."""
        loading = self._loads or self._canary_pending or self._verifier.is_busy
        return bool(self._running or loading or any(_fits(r, self._version) for r in self._waiting.values()))

    def _end_span(self) -> None:
        """Report the time with running requests, one span per weight version."""
        if self._generating_since is not None:
            self._channel.send(Span.since("generate", self._version, self._generating_since, clock=self._clock))
            self._generating_since = None

    def _beat(self) -> None:
        now = self._clock()
        if now - self._last_beat >= BEAT_SECONDS:
            self._last_beat = now
            memory = self._engine.gpu_bytes()
            self._channel.send(Heartbeat(self._steps, bool(self._running), self._busy_s, now, memory))


def _fits(request: GenerateGroup, version: int) -> bool:
    """Whether weights `version` may generate the request."""
    return version == request.min_version if request.pinned else version >= request.min_version
