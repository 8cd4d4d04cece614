"""In which order an actor starts requests: pinned versions, and what is urgent on a CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from grpo_gsm8k.actor.loop import Actor
from grpo_gsm8k.errors import WeightsError
from grpo_gsm8k.transport import weights as published
from grpo_gsm8k.transport.protocol import (
    Bundle,
    Cancel,
    GenerateGroup,
    GroupResult,
    LoadWeights,
    SamplingSpec,
    Stop,
    WeightsDamaged,
    WeightsLive,
    WeightsRef,
)
from grpo_gsm8k.transport.weights import Canary, VerifiedWeights

DAMAGED = "damaged"


class Engine:
    """Finishes one request of those that run in each step: the oldest of the most urgent ones."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.running: list[GenerateGroup] = []
        self.live: list[WeightsLive] = []

    def add(self, request: GenerateGroup) -> None:
        self.log.append(f"start {request.request_id}")
        self.running.append(request)

    def load(self, verified: VerifiedWeights) -> None:
        self.log.append(f"load {verified.ref.version}")
        self.live.append(WeightsLive(verified.ref, 0.0, 0.0))

    def step(self) -> list[object]:
        found: list[object] = [*self.live]
        self.live = []
        if self.running:
            done = min(self.running, key=lambda r: r.priority)
            self.running.remove(done)
            self.log.append(f"end {done.request_id}")
            found.append(GroupResult(done.request_id, ()))
        return found

    def abort(self, request_ids: Sequence[str]) -> None:
        self.log += [f"abort {request_id}" for request_id in request_ids]
        self.running = [request for request in self.running if request.request_id not in request_ids]

    def gpu_bytes(self) -> int:
        return 0


class Commands:
    """A channel that delivers one message per turn of the loop, then stops the actor when nothing runs anymore."""

    def __init__(self, engine: Engine, *messages: object) -> None:
        self.engine = engine
        self.messages = deque(messages)
        self.turn = True
        self.sent: list[object] = []

    def send(self, message: object) -> None:
        self.sent.append(message)

    def receive(self, timeout: float) -> object | None:
        self.turn = not self.turn
        if self.turn:
            return None
        if self.messages:
            return self.messages.popleft()
        return Stop() if timeout else None


@pytest.fixture(autouse=True)
def _no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to verify: only the order matters here."""

    def verify(ref: WeightsRef) -> VerifiedWeights:
        if ref.path == DAMAGED:
            raise WeightsError("damaged")
        return VerifiedWeights(ref, "model", Canary((), ()), 0.0)

    monkeypatch.setattr(published, "verify", verify)


def request(name: str, version: int, priority: int, pinned: bool = False, n: int = 8) -> GenerateGroup:
    sampling = SamplingSpec(1.0, 1.0, 4, 0, (1,))
    return GenerateGroup(name, np.array([5], dtype=np.int32), n, sampling, version, pinned, priority=priority)


def weights(version: int, path: str = "") -> LoadWeights:
    return LoadWeights(WeightsRef(version, path))


def order(few: int | None, *messages: object) -> list[str]:
    """What the engine was told to do."""
    engine: Any = Engine()
    channel: Any = Commands(engine, *messages)
    Actor(engine, channel, few=few).run()
    log: list[str] = engine.log
    return log


# Version 0 generates rollouts of updates 0 and 1 (priorities 0 and 2), then its validation, while version 1 waits.
FIRST = Bundle((weights(0), request("r0", 0, 0), request("r1", 0, 2), request("val", 0, 3, pinned=True, n=1)))
SECOND = Bundle((weights(1), request("r2", 1, 4)))


def test_a_cpu_serves_what_the_learner_needs_first() -> None:
    """And the next version is loaded after the whole validation of the one before."""
    expected = ["load 0", "start r0", "end r0", "start r1", "end r1", "start val", "end val"]
    assert order(7, FIRST, SECOND) == [*expected, "load 1", "start r2", "end r2"]


def test_the_next_ones_start_when_only_few_of_the_urgent_ones_are_left() -> None:
    assert order(8, FIRST) == ["load 0", "start r0", "start r1", "end r0", "start val", "end r1", "end val"]


def test_a_gpu_starts_all_that_its_version_allows() -> None:
    log = order(None, FIRST, SECOND)
    assert log[:4] == ["load 0", "start r0", "start r1", "start val"]
    assert log[-3:] == ["load 1", "start r2", "end r2"]


def test_urgent_requests_that_come_later_are_next() -> None:
    """Active sampling replaces prompts of an update whose successor is running already."""
    more = Bundle((request("more", 0, 0),))
    log = order(0, Bundle((weights(0), request("a", 0, 2), request("b", 0, 4))), more)
    assert log.index("start more") < log.index("start b")


class Learner(Commands):
    """Publishes damaged weights again, after a request for the version before them."""

    def send(self, message: object) -> None:
        super().send(message)
        if isinstance(message, WeightsDamaged):
            version = message.ref.version
            self.messages += [Bundle((request("late", max(0, version - 1), 9),)), Bundle((weights(version),))]


def order_with_damage(*messages: object) -> tuple[list[str], list[object]]:
    """What the engine was told to do, and what was reported as damaged."""
    engine: Any = Engine()
    channel: Any = Learner(engine, *messages)
    Actor(engine, channel).run()
    return engine.log, [message for message in channel.sent if isinstance(message, WeightsDamaged)]


def test_damaged_weights_are_reported_and_the_old_ones_go_on() -> None:
    first = Bundle((weights(0), request("r0", 0, 0)))
    log, reports = order_with_damage(first, Bundle((weights(1, DAMAGED), request("r1", 1, 4))))
    assert reports == [WeightsDamaged(WeightsRef(1, DAMAGED), "damaged")]
    assert log == [
        *("load 0", "start r0", "end r0"),
        *("start late", "end late"),
        *("load 1", "start r1", "end r1"),
    ]


def test_a_later_version_waits_for_the_replacement_of_one_that_a_request_is_pinned_to() -> None:
    log, reports = order_with_damage(Bundle((weights(0, DAMAGED), request("val", 0, 3, pinned=True))), SECOND)
    assert len(reports) == 1
    assert log[0] == "load 0"
    assert log.index("end val") < log.index("load 1") < log.index("start r2")


def test_a_version_older_than_the_live_one_is_loaded_for_a_pinned_request_only() -> None:
    late = Bundle((weights(0),))
    assert order(None, SECOND, late, Bundle((request("r3", 1, 6),))) == [
        *("load 1", "start r2", "end r2", "start r3", "end r3"),
    ]


def test_the_live_version_is_loaded_again_after_an_older_one_for_an_actor_that_has_left() -> None:
    """Running requests end first: none may get tokens of older weights than those it began with."""
    moved = Bundle((weights(0), weights(1), request("val", 0, 3, pinned=True), request("r4", 1, 6)))
    assert order(None, SECOND, moved) == [
        *("load 1", "start r2", "end r2"),
        *("load 0", "start val", "end val"),
        *("load 1", "start r4", "end r4"),
    ]


def test_cancelled_requests_end_whether_they_run_or_wait() -> None:
    """Those that have ended or were never here are ignored; the others go on, and the next weights are loaded."""
    first = Bundle((weights(0), request("r0", 0, 0), request("r1", 0, 2), request("r2", 0, 4), request("later", 1, 6)))
    second = Bundle((Cancel(("r0", "r2", "later", "unknown")), weights(1), request("r3", 1, 8)))
    log = order(None, first, second)
    assert "abort r2" in log
    assert not {"abort r0", "start later", "end r2"} & set(log)
    assert log.index("load 1") < log.index("start r3")
    assert {"end r0", "end r1", "end r3"} <= set(log)
