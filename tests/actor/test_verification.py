"""The actor's loop with the scripted engine: weights are verified in a thread while the engine goes on."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from grpo_gsm8k.actor import loop
from grpo_gsm8k.actor.engine import EngineSpec
from grpo_gsm8k.actor.scripted_engine import ScriptedEngine
from grpo_gsm8k.transport import weights
from grpo_gsm8k.transport.protocol import (
    Bundle,
    GenerateGroup,
    GroupResult,
    LoadWeights,
    Reset,
    SamplingSpec,
    Stop,
    WeightsDamaged,
    WeightsLive,
    WeightsRef,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TIMEOUT = 60.0  # of every wait, in seconds; none is reached when the tests pass
NEVER = 0  # a stop token that the scripted engine samples at the end only
SPEC = EngineSpec("scripted", "", "cpu", "float32", 0.5, 64, 10**6, 16, 1024, True, True, 0, 1, 1e-3, seed=0)


class CountingEngine(ScriptedEngine):
    """Counts its steps and records what it loads."""

    def __init__(self) -> None:
        super().__init__(SPEC)
        self.changed = threading.Condition()
        self.aborted = threading.Event()
        self.steps = 0
        self.loaded: list[int] = []
        self.admitted: list[str] = []

    def add(self, request: GenerateGroup) -> None:
        super().add(request)
        self.admitted.append(request.request_id)

    def abort(self, request_ids: Sequence[str]) -> None:
        super().abort(request_ids)
        self.aborted.set()

    def load(self, verified: weights.VerifiedWeights) -> None:
        super().load(verified)
        self.loaded.append(verified.ref.version)

    def step(self) -> list[GroupResult | WeightsLive]:
        results = super().step()
        with self.changed:
            self.steps += 1
            self.changed.notify_all()
        return results

    def versions(self, name: str) -> list[int]:
        """Return the versions of a running request's tokens so far."""
        return sorted(set(self._running[name].sequences[0].versions))

    def finish(self, name: str) -> None:
        """Let a running request end with its next token."""
        for sequence in self._running[name].sequences:
            sequence.length = len(sequence.tokens) + 1

    def wait_for_steps(self, more: int) -> None:
        """Wait until this many further steps are done."""
        with self.changed:
            goal = self.steps + more
            assert self.changed.wait_for(lambda: self.steps >= goal, TIMEOUT)


class Lab:
    """An actor in a thread, the messages to and from it, and a gate before every verification."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.engine = CountingEngine()
        self.inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.outbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.gate = threading.Event()
        self.gate.set()
        self.verifying: queue.SimpleQueue[int] = queue.SimpleQueue()
        verify = weights.verify

        def gated(ref: WeightsRef) -> weights.VerifiedWeights:
            self.verifying.put(ref.version)
            assert self.gate.wait(TIMEOUT)
            return verify(ref)

        monkeypatch.setattr(weights, "verify", gated)
        self.thread = threading.Thread(target=loop.Actor(self.engine, self).run, daemon=True)  # type: ignore[arg-type]
        self.thread.start()

    def send(self, message: object) -> None:
        """As the actor's channel: take its report."""
        self.outbox.put(message)

    def receive(self, timeout: float) -> object | None:
        """As the actor's channel: give it a command."""
        try:
            return self.inbox.get(block=timeout > 0, timeout=timeout or None)
        except queue.Empty:
            return None

    def published(self, version: int) -> LoadWeights:
        def write(folder: Path) -> dict[str, str]:
            (folder / weights.MODEL_FILE).write_bytes(bytes([version]))
            return {}

        canary = weights.Canary((1, 2), (-0.5,))
        return LoadWeights(weights.publish(self.folder, version, "model", 1, write, canary))

    def command(self, *messages: GenerateGroup | LoadWeights) -> None:
        self.inbox.put(Bundle(messages))

    def results(self, names: Sequence[str]) -> dict[str, list[int]]:
        """Wait for these requests and return the versions of each one's tokens, without repetitions."""
        found: dict[str, list[int]] = {}
        while not found.keys() >= set(names):
            message = self.outbox.get(timeout=TIMEOUT)
            if isinstance(message, GroupResult):
                found[message.request_id] = [span.version for span in message.completions[0].version_spans]
        return found

    def live(self) -> WeightsLive:
        while not isinstance(message := self.outbox.get(timeout=TIMEOUT), WeightsLive):
            pass
        return message

    def begin_verification(self, *messages: GenerateGroup | LoadWeights) -> None:
        """Send the messages and return when the verification waits at the gate."""
        while not self.verifying.empty():
            self.verifying.get()
        self.gate.clear()
        self.command(*messages)
        self.verifying.get(timeout=TIMEOUT)

    def joined(self) -> bool:
        self.thread.join(TIMEOUT)
        return not self.thread.is_alive()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    lab = Lab(tmp_path, monkeypatch)
    yield lab
    lab.gate.set()
    lab.inbox.put(Stop())
    assert lab.joined()


def request(name: str, version: int, tokens: int = 20, pinned: bool = False) -> GenerateGroup:
    sampling = SamplingSpec(0.8, 1.0, tokens, 0, (NEVER,))
    return GenerateGroup(name, np.arange(5, 9, dtype=np.int32), 1, sampling, version, pinned)


def test_running_requests_go_on_during_verification_and_new_ones_wait_for_the_new_weights(lab: Lab) -> None:
    lab.command(lab.published(0), request("running", 0, tokens=10**5))
    assert lab.live().ref.version == 0
    lab.engine.wait_for_steps(3)
    lab.begin_verification(lab.published(1), request("new", 0))
    lab.engine.wait_for_steps(20)
    assert lab.engine.loaded == [0]
    assert lab.engine.admitted == ["running"]
    lab.gate.set()
    live = lab.live()
    assert live.ref.version == 1
    assert live.verify_seconds > 0
    assert lab.results(["new"]) == {"new": [1]}
    assert lab.engine.versions("running") == [0, 1]


def test_an_idle_actor_is_woken_by_the_result(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither polls nor waits for a command meanwhile: both would take an hour here."""
    monkeypatch.setattr(loop, "IDLE_WAIT_SECONDS", 3600.0)
    lab.begin_verification(lab.published(0), request("first", 0))
    lab.gate.set()
    assert lab.live().ref.version == 0
    assert lab.results(["first"]) == {"first": [0]}
    monkeypatch.undo()


def test_damaged_weights_are_reported_before_the_engine_is_touched(lab: Lab) -> None:
    lab.command(lab.published(0), request("running", 0, tokens=10**5))
    lab.live()
    load = lab.published(1)
    (Path(load.ref.path) / weights.MODEL_FILE).write_bytes(b"X")
    lab.begin_verification(load)
    lab.engine.wait_for_steps(3)
    lab.gate.set()
    while not isinstance(message := lab.outbox.get(timeout=TIMEOUT), WeightsDamaged):
        pass
    assert message.ref == load.ref
    assert "weights version 1" in message.reason
    lab.engine.wait_for_steps(3)
    assert lab.engine.loaded == [0]
    assert lab.engine.versions("running") == [0]


def test_a_reset_drops_the_version_that_is_being_verified(lab: Lab) -> None:
    """Even a damaged one: the old learner's weights do not matter anymore."""
    old = lab.published(7)
    (Path(old.ref.path) / weights.MODEL_FILE).write_bytes(b"X")
    lab.begin_verification(old, request("old", 7))
    lab.inbox.put(Reset())
    assert lab.engine.aborted.wait(TIMEOUT)
    lab.command(lab.published(1), request("new", 1))
    lab.gate.set()
    assert lab.live().ref.version == 1
    assert lab.results(["new"]) == {"new": [1]}
    assert lab.engine.loaded == [1]


def test_stop_does_not_wait_for_a_verification(lab: Lab) -> None:
    lab.begin_verification(lab.published(0))
    lab.inbox.put(Stop())
    assert lab.joined()
    assert not lab.gate.is_set()


def test_a_pinned_request_that_arrives_during_verification_keeps_the_live_version(lab: Lab) -> None:
    lab.command(lab.published(0), request("running", 0, tokens=10**5))
    lab.live()
    lab.begin_verification(lab.published(1))
    lab.command(request("pinned", 0, tokens=10**5, pinned=True))
    while "pinned" not in lab.engine.admitted:
        lab.engine.wait_for_steps(1)
    lab.gate.set()
    lab.engine.wait_for_steps(20)
    assert lab.engine.loaded == [0]
    lab.engine.finish("pinned")
    assert lab.results(["pinned"]) == {"pinned": [0]}
    assert lab.live().ref.version == 1


def test_superseded_versions_are_skipped_except_for_pinned_requests(lab: Lab) -> None:
    lab.begin_verification(lab.published(0))
    lab.command(*(lab.published(version) for version in (1, 2, 3)), request("pinned", 2, pinned=True))
    lab.gate.set()
    assert lab.results(["pinned"]) == {"pinned": [2]}
    assert lab.live().ref.version == 3
    assert lab.engine.loaded == [0, 2, 3]
