"""Copies of weights on another machine, with a host that fails in every way that it can."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray")

from grpo_gsm8k.cluster.node import CopyError, Node, NodeWriter, Stored  # noqa: E402
from grpo_gsm8k.cluster.ray_calls import NodeLostError, RayCalls  # noqa: E402
from grpo_gsm8k.errors import DiskFullError  # noqa: E402
from grpo_gsm8k.transport.protocol import Bundle, LoadWeights, WeightsDamaged, WeightsRef  # noqa: E402

REF = WeightsRef(3, "/shm/run/i0/v3")


class OtherMachine(Node):
    """Answers calls itself: with the next of `answers`, which are paths or errors."""

    def __init__(self, *answers: str | Exception) -> None:
        stored: Any = type("Folders", (Stored,), {"folder": lambda self, path: {"model.safetensors": b""}})(RayCalls())
        super().__init__("id", "10.0.0.2", None, stored, False, RayCalls())
        self.answers_left = list(answers)
        self.told: list[tuple[object, ...]] = []

    def call(self, method: str, *arguments: object, seconds: float = 0.0) -> Any:
        answer = self.answers_left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def tell(self, method: str, *arguments: object) -> None:
        self.told.append((method, *arguments))


@pytest.mark.parametrize(
    "error",
    [
        DiskFullError("/shm was not written: 5 bytes are free"),
        OSError("broken"),
        NodeLostError("10.0.0.2: gone"),
        ray.exceptions.ObjectStoreFullError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_copy_that_fails_is_reported_and_tried_again_by_the_next(error: Exception) -> None:
    node, failures, sent = OtherMachine(error, "/there/v3"), [], []  # type: ignore[var-annotated]
    pipe: Any = type("Pipe", (), {"send": lambda self, obj: sent.append(obj)})()
    writer = NodeWriter(pipe, node, lambda version, began: None, failures.append)
    with pytest.raises(CopyError):
        writer.send(Bundle((LoadWeights(REF),)))
    assert len(failures) == 1
    assert failures[0].startswith("/shm/run/i0/v3 could not be copied to 10.0.0.2: ")
    writer.send(Bundle((LoadWeights(REF),)))
    assert sent == [Bundle((LoadWeights(WeightsRef(3, "/there/v3")),))]
    assert node.original(WeightsDamaged(WeightsRef(3, "/there/v3"), "x")) == WeightsDamaged(REF, "x")
    node.forget(REF.path)
    assert node.told == [("forget", "/there/v3")]


def test_a_copy_that_nobody_needs_any_more_when_it_is_done_is_deleted() -> None:
    node = OtherMachine()
    begun, go_on = threading.Event(), threading.Event()

    def call(method: str, *arguments: object, seconds: float = 0.0) -> str:
        begun.set()
        assert go_on.wait(60)
        return "/there/v3"

    node.call = call  # type: ignore[method-assign]
    thread = threading.Thread(target=node.copy_of, args=(REF.path, "i0/v3"))
    thread.start()
    assert begun.wait(60)
    node.forget(REF.path)
    go_on.set()
    thread.join(60)
    assert node.told == [("forget", "/there/v3")]


def test_files_of_this_machine_need_no_copy(tmp_path: Path) -> None:
    node = OtherMachine()
    node.here = True
    message = Bundle((LoadWeights(REF),))
    assert node.translated(message) is message
    assert node.copy_of(str(tmp_path), "x") == str(tmp_path)


def test_the_end_of_a_run_waits_for_calls_and_allows_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: Ray's library ends a process whose thread calls it after `ray.shutdown`."""
    calls, waiting, released = RayCalls(), threading.Event(), threading.Event()

    def wait(references: list[str], timeout: float) -> tuple[list[str], list[str]]:
        waiting.set()
        released.wait(20)
        return [], references

    monkeypatch.setattr(ray, "wait", wait)
    errors: list[type[BaseException]] = []

    def get() -> None:
        try:
            calls.get("reference", 600.0)
        except NodeLostError as error:
            errors.append(type(error))

    caller = threading.Thread(target=get, daemon=True)
    caller.start()
    assert waiting.wait(20)
    closer = threading.Thread(target=calls.close, args=(20.0,), daemon=True)
    closer.start()
    closer.join(0.2)
    assert closer.is_alive()  # a call is under way
    released.set()
    closer.join(20)
    caller.join(20)
    assert not closer.is_alive()
    assert errors == [NodeLostError]  # long before its 600 s
    with pytest.raises(NodeLostError, match="the run is ending"), calls.running():
        pass
