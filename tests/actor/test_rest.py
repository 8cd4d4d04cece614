"""An engine that sleeps whenever nothing is left to do."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from grpo_gsm8k.actor.engine import EngineSpec
from grpo_gsm8k.actor.loop import Actor
from grpo_gsm8k.actor.scripted_engine import ScriptedEngine
from grpo_gsm8k.transport import weights as published
from grpo_gsm8k.transport.protocol import (
    Bundle,
    GenerateGroup,
    GroupResult,
    LoadWeights,
    Reset,
    SamplingSpec,
    Stop,
    WeightsLive,
    WeightsRef,
)
from grpo_gsm8k.transport.weights import Canary, VerifiedWeights

SPEC = EngineSpec(
    kind="scripted",
    model_folder="",
    device="cpu",
    dtype="float32",
    gpu_memory=0.4,
    kv_cache_mb=1,
    max_model_len=64,
    max_num_seqs=8,
    max_batched_tokens=64,
    enforce_eager=True,
    prefix_caching=True,
    lora_rank=0,
    lora_versions=1,
    canary_tolerance=0.1,
    seed=0,
    sleeps=True,
)


class SleepyEngine(ScriptedEngine):
    """Records what it does in the log that it shares with the channel."""

    def __init__(self, log: list[str]) -> None:
        super().__init__(SPEC)
        self._log = log

    def sleep(self) -> None:
        super().sleep()
        self._log.append("sleep")

    def wake(self) -> None:
        super().wake()
        self._log.append("wake")

    def step(self) -> list[GroupResult | WeightsLive]:
        found = super().step()
        self._log += [f"end {result.request_id}" for result in found if isinstance(result, GroupResult)]
        return found


class Learner:
    """The other end of the channel: sends each message once its event is in the log."""

    def __init__(self, log: list[str], messages: list[tuple[str, object]]) -> None:
        self._log = log
        self._messages = deque(messages)

    def send(self, message: object) -> None:
        if isinstance(message, GroupResult):
            self._log.append(f"result {message.request_id}")

    def receive(self, timeout: float) -> object | None:
        if self._messages and self._messages[0][0] in ["", *self._log]:
            return self._messages.popleft()[1]
        return None


@pytest.fixture(autouse=True)
def _no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to verify: only the order matters here."""
    monkeypatch.setattr(published, "verify", lambda ref: VerifiedWeights(ref, "model", Canary((), ()), 0.0))


def request(name: str, version: int, tokens: int = 4, pinned: bool = False) -> GenerateGroup:
    sampling = SamplingSpec(1.0, 1.0, tokens, 0, (1,))
    return GenerateGroup(name, np.array([5], dtype=np.int32), 2, sampling, version, pinned)


def run(*messages: tuple[str, object], sleeps: bool = True) -> list[str]:
    log: list[str] = []
    Actor(SleepyEngine(log), Learner(log, list(messages)), sleeps=sleeps).run()  # type: ignore[arg-type]
    return log


def update(version: int, *requests: GenerateGroup) -> Bundle:
    return Bundle((LoadWeights(WeightsRef(version, "")), *requests))


def test_it_sleeps_before_the_learner_has_a_result_and_wakes_for_the_next_weights() -> None:
    first = update(0, request("rollouts", 0, tokens=1), request("validation", 0, tokens=30, pinned=True))
    log = run(("", first), ("result validation", update(1, request("next", 1))), ("result next", Stop()))
    results = ["result rollouts", "result validation"]
    assert log == ["end rollouts", "end validation", "sleep", *results, "wake", "end next", "sleep", "result next"]


def test_further_requests_for_the_same_weights_wake_it_too() -> None:
    log = run(("", update(0, request("a", 0))), ("result a", request("more", 0)), ("result more", Stop()))
    assert log == ["end a", "sleep", "result a", "wake", "end more", "sleep", "result more"]


def test_results_for_a_learner_that_is_gone_are_not_sent() -> None:
    bundle = update(0, request("short", 0, tokens=1), request("long", 0, tokens=40))
    log = run(("", bundle), ("end short", Reset()), ("sleep", Stop()))
    assert log == ["end short", "sleep"]


def test_an_engine_that_does_not_sleep_sends_each_result_at_once() -> None:
    bundle = update(0, request("short", 0, tokens=1), request("long", 0, tokens=40))
    log = run(("", bundle), ("result long", Stop()), sleeps=False)
    assert log == ["end short", "result short", "end long", "result long"]
