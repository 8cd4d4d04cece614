"""An engine that computes nothing: it knows from its rates when each sequence ends.

It has the interface of the real ones, but `step` does all steps up to the present time at once: between two events the
number of running sequences changes only where one of them ends.
"""

from __future__ import annotations

import functools
import heapq
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.transport.protocol import Completion, GroupResult, VersionSpan, WeightsLive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.planning.rates import EngineRates, Lengths
    from grpo_gsm8k.planning.simulated_clock import SimulatedClock
    from grpo_gsm8k.transport.protocol import GenerateGroup
    from grpo_gsm8k.transport.weights import VerifiedWeights

NO_LOGPROBS = np.zeros(0, np.float32)
CLOSE = 1e-9  # seconds, and tokens: differences that only rounding makes


@dataclass(slots=True)
class _Group:
    request: GenerateGroup
    version: int  # of its first token
    lengths: tuple[int, ...]
    left: int  # sequences without an end
    begun: bool = False


class SimulatedEngine:
    """Runs up to `max_sequences` sequences at once, the most urgent first, as vLLM does with priorities."""

    def __init__(self, rates: EngineRates, lengths: Lengths, clock: SimulatedClock) -> None:
        """No weights are live."""
        self.busy_s = 0.0
        self.results = 0  # that `step` has returned
        self._rates = rates
        self._lengths = lengths
        self._clock = clock
        self._version = -1
        self._time = 0.0  # up to which steps are done
        self._held_until = 0.0  # by a swap of weights, or by prompts
        self._tokens = 0.0  # that a sequence has which runs since the beginning
        self._waiting: list[tuple[int, int, int, _Group]] = []  # priority, order, length
        self._running: list[tuple[float, int, int, _Group]] = []  # `_tokens` at its end, order, length
        self._order = 0
        self._finished: list[GroupResult] = []
        self._live: list[WeightsLive] = []

    def add(self, request: GenerateGroup) -> None:
        """Start a request with the next step, the most urgent of all that were added before it first."""
        if self._clock() > self._time:
            self._catch_up()
        lengths = drawn(self._lengths, request)
        group = _Group(request, self._version, lengths, len(lengths))
        for length in lengths:
            self._order += 1
            heapq.heappush(self._waiting, (request.priority, self._order, length, group))

    def abort(self, request_ids: Sequence[str]) -> None:
        """Nothing is aborted: the simulated learner is never replaced."""
        assert not request_ids

    def sleep(self) -> None:
        """Nothing to free."""

    def wake(self) -> None:
        """Nothing to take."""

    def gpu_bytes(self) -> int:
        """Return 0."""
        return 0

    def load(self, verified: VerifiedWeights) -> None:
        """Stop for the swap, and for the contexts of the running sequences, which are computed again."""
        self._catch_up()
        self._version = verified.ref.version
        context = sum(self._lengths.prompt + length - (end - self._tokens) for end, _, length, _ in self._running)
        self._hold(self._rates.load_s + context * self._rates.prompt_token_s)
        self._live.append(WeightsLive(verified.ref, self._rates.load_s, 0.0, verified.seconds))

    def step(self) -> list[GroupResult | WeightsLive]:
        """Do all steps up to now; returns what was finished by them."""
        self._catch_up()
        finished: list[GroupResult | WeightsLive] = []
        if self._time >= self._held_until - CLOSE:
            finished += self._live
            self._live = []
        finished += self._finished
        self._finished = []
        self.results += len(finished)
        return finished

    @property
    def has_results(self) -> bool:
        """Whether `step` would return something now."""
        self._catch_up()
        return bool(self._finished or (self._live and self._time >= self._held_until - CLOSE))

    @property
    def next_event(self) -> float | None:
        """When the next sequence ends, or a swap; None if nothing runs."""
        self._fill()
        if self._live and self._time < self._held_until:
            return self._held_until
        if not self._running:
            return None
        steps = max(0.0, self._running[0][0] - self._tokens)
        return max(self._time, self._held_until) + steps * self._rates.step(len(self._running))

    def _hold(self, seconds: float) -> None:
        self._held_until = max(self._time, self._held_until) + seconds

    def _fill(self) -> None:
        """Start waiting sequences in free places. A group's prompt is computed with its first one."""
        while self._waiting and len(self._running) < self._rates.max_sequences:
            _, order, length, group = heapq.heappop(self._waiting)
            if not group.begun:
                group.begun = True
                self._hold(self._lengths.prompt * self._rates.prompt_token_s)
            heapq.heappush(self._running, (self._tokens + length, order, length, group))

    def _catch_up(self) -> None:
        """Do the steps since the last call."""
        now = self._clock()
        while True:
            self._fill()
            if self._time < self._held_until:
                held = min(now, self._held_until) - self._time
                self.busy_s += held
                self._time += held
            if not self._running or self._time < self._held_until:
                break
            step_s = self._rates.step(len(self._running))
            end = self._running[0][0]
            to_end = max(0.0, end - self._tokens) * step_s
            if self._time + to_end > now + CLOSE:
                part = max(0.0, now - self._time)
                self._tokens += part / step_s
                self.busy_s += part
                break
            self.busy_s += to_end
            self._time += to_end
            self._tokens = end
            while self._running and self._running[0][0] <= end + CLOSE:
                self._end_first()
        self._time = max(self._time, now)

    def _end_first(self) -> None:
        """End the sequence with the fewest tokens left; its group is finished with its last one."""
        *_, group = heapq.heappop(self._running)
        group.left -= 1
        if group.left == 0:
            self._finished.append(_result(group))


def drawn(lengths: Lengths, request: GenerateGroup) -> tuple[int, ...]:
    """Return the lengths of a request's completions: those of a recorded group or item, drawn by the request's id."""
    rng = random.Random(f"{request.request_id}:{request.sampling.seed}")
    limit = request.sampling.max_new_tokens
    if request.pinned:
        return (min(limit, rng.choice(lengths.validation)),)
    group = rng.choice(lengths.groups)
    chosen = group if len(group) == request.n else rng.choices(group, k=request.n)
    return tuple(min(limit, length) for length in chosen)


def _result(group: _Group) -> GroupResult:
    return GroupResult(group.request.request_id, tuple(_completion(length, group.version) for length in group.lengths))


def _completion(length: int, version: int) -> Completion:
    """Return a completion of which nothing but length and first version is of use."""
    return Completion(_tokens(length), NO_LOGPROBS, "stop", (VersionSpan(version, 0, length),))


@functools.cache
def _tokens(length: int) -> np.ndarray:
    return np.broadcast_to(np.int32(0), (length,))  # read-only, and all in one number
