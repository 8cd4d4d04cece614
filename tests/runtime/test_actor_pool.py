"""ActorPool with fake workers: replacement, re-issue of requests, restart limit, fatal errors."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from grpo_gsm8k.errors import LabError, UserError, WorkerError
from grpo_gsm8k.runtime.actor_pool import PLACE_SECONDS, ActorPool
from grpo_gsm8k.runtime.restarts import Restarts
from grpo_gsm8k.transport.protocol import Bundle, Crashed, GenerateGroup, GroupResult, SamplingSpec, StartEngine

REQUEST = GenerateGroup("a", np.array([1], dtype=np.int32), 1, SamplingSpec(1.0, 1.0, 4, 0, (1,)), 0, pinned=False)


class FakeWorker:
    """The part of Worker that a pool uses, without a process."""

    def __init__(self, index: int, pid: int) -> None:
        self.name, self.pid, self.exit_reason = f"actor-{index}", pid, "exit code -9"
        self.crash: Crashed | None = None
        self.ready = self.held = self.machine_lost = False
        self.channel = self
        self.sent: list[object] = []
        self.stuck = ""
        self.killed = False

    def send(self, message: object) -> None:
        self.sent.append(message)

    def release(self, message: object) -> None:
        self.held = False
        self.send(message)

    def observe(self, message: object) -> None:
        if isinstance(message, Crashed):
            self.crash = message

    def overdue(self) -> str:
        return self.stuck

    def kill(self) -> None:
        self.killed = True


class Run:
    """A started pool and everything that it did."""

    def __init__(self, limit: int = 1, start_engines: bool = True) -> None:
        self.workers: list[Any] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.results: list[Any] = []
        restarts = Restarts("actor", limit, lambda kind, **fields: self.events.append((kind, fields)), backoff_s=0.0)
        self.full = False
        self.pool = ActorPool(2, self.spawn, restarts, self.results.append, lambda _: None, lambda _: None)
        self.pool.start()
        if not start_engines:
            return
        self.pool.start_engines()
        self.pool.router.from_learner(Bundle((REQUEST,)))

    def spawn(self, index: int) -> Any:
        if self.full:
            return None
        self.workers.append(FakeWorker(index, pid=100 + len(self.workers)))
        return self.workers[-1]


def test_a_dead_actor_is_replaced_and_its_requests_are_issued_again() -> None:
    run = Run()
    dead = run.workers[0]
    run.pool.handle(dead, None)
    assert dead.killed
    assert [worker.pid for worker in run.pool.actors] == [102, 101]
    assert run.pool.actors[0].channel.sent == [StartEngine(), Bundle((REQUEST,))]  # type: ignore[attr-defined]
    assert run.events[2:] == [
        ("actor_restarted", {"worker": "actor-0", "reason": "exit code -9", "restart": 1}),
        ("worker_started", {"worker": "actor-0", "pid": 102}),
    ]
    run.pool.handle(dead, GroupResult("a", ()))
    assert run.results == []  # messages of a replaced actor are ignored
    run.pool.handle(run.workers[2], GroupResult("a", ()))
    assert [result.request_id for result in run.results] == ["a"]


def test_engines_start_when_told_to_and_later_replacements_at_once() -> None:
    run = Run(limit=2, start_engines=False)
    run.pool.handle(run.workers[0], None)  # dies while it imports

    def actors() -> list[Any]:
        return run.pool.actors

    assert [(worker.pid, worker.held, worker.sent) for worker in actors()] == [(102, True, []), (101, True, [])]
    for _ in range(2):  # the second time does nothing
        run.pool.start_engines()
    run.pool.handle(run.workers[1], Crashed("A: a", fatal=False, user_error=False))
    run.pool.handle(run.workers[1], None)
    assert [(worker.pid, worker.held, worker.sent) for worker in actors()] == [
        (102, False, [StartEngine()]),
        (103, False, [StartEngine()]),
    ]


def test_a_stuck_actor_is_replaced() -> None:
    run = Run()
    run.workers[1].stuck = "silent for 5 s"
    run.pool.replace_overdue()
    assert run.events[2][1]["reason"] == "silent for 5 s"
    assert [worker.pid for worker in run.pool.actors] == [100, 102]


def test_the_restart_limit_holds_for_all_actors_together() -> None:
    run = Run(limit=1)
    run.pool.handle(run.workers[0], None)
    run.pool.handle(run.workers[1], Crashed("KeyError: 7", fatal=False, user_error=False))
    with pytest.raises(WorkerError, match=r"actor-1 failed 2 times \(limit actor\.max_restarts\): KeyError: 7"):
        run.pool.handle(run.workers[1], None)
    assert len(run.workers) == 3


@pytest.mark.parametrize(("user_error", "expected"), [(True, UserError), (False, LabError)])
def test_a_fatal_error_is_raised_without_a_restart(user_error: bool, expected: type[Exception]) -> None:
    run = Run()
    run.pool.handle(run.workers[0], Crashed("disk full", fatal=True, user_error=user_error))
    with pytest.raises(expected, match="disk full") as caught:
        run.pool.handle(run.workers[0], None)
    assert type(caught.value) is expected
    assert len(run.workers) == 2


def crash(run: Run, place: int, error: str) -> None:
    """Let the newest actor of an index end with an error."""
    worker = run.pool.actors[place]
    run.pool.handle(worker, Crashed(error, fatal=False, user_error=False))
    run.pool.handle(worker, None)


def test_the_same_error_before_ready_twice_in_a_row_ends_the_run_with_that_error() -> None:
    run = Run(limit=9)
    crash(run, 0, "ValueError: no such architecture")
    with pytest.raises(WorkerError, match="actor-0 failed twice in a row at its start: ValueError: no such architect"):
        crash(run, 0, "ValueError: no such architecture")
    assert [kind for kind, _ in run.events].count("actor_restarted") == 2


def test_other_errors_before_ready_are_retried() -> None:
    run = Run(limit=9)
    for place, error in ((0, "A: a"), (1, "A: a"), (0, "A: b"), (0, "A: a")):
        crash(run, place, error)
    run.pool.actors[0].ready = True  # type: ignore[misc]
    for _ in range(2):  # after Ready, the same error counts as one more failure
        crash(run, 0, "A: a")
        run.pool.actors[0].ready = True  # type: ignore[misc]
    assert len(run.workers) == 8


def test_the_number_of_actors_changes_while_requests_are_outstanding() -> None:
    run = Run()
    run.pool.resize(1)
    assert (run.pool.size, run.workers[1].killed) == (1, True)
    run.pool.handle(run.workers[1], None)  # the end of its channel: no failure
    assert [kind for kind, _ in run.events] == ["worker_started"] * 2
    run.pool.resize(3)
    assert [worker.name for worker in run.pool.actors] == ["actor-0", "actor-1", "actor-2"]
    run.pool.resize(0)
    assert run.pool.actors == []
    run.pool.resize(1)
    assert run.workers[-1].sent == [StartEngine(), Bundle((REQUEST,))]


def test_an_actor_without_a_place_is_started_once_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    run.full = True
    run.pool.handle(run.workers[0], None)
    assert run.pool.actors == [run.workers[1]]
    assert run.workers[1].sent[-1] == Bundle((REQUEST,))
    run.pool.replace_overdue()
    run.full = False
    run.pool.replace_overdue()  # not searched for again so soon
    assert len(run.workers) == 2
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + PLACE_SECONDS)
    run.pool.replace_overdue()
    assert [worker.name for worker in run.pool.actors] == ["actor-0", "actor-1"]
