"""Children that hang, crash or take too much memory end within their limits and are replaced."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from grpo_gsm8k.children.limited_child import ChildError, LimitedChild, Limits

MODULE = "tests.children.obedient_child"
LIMITS = Limits(wall_s=1.5, memory_mb=1024)
PROBE = "import sys; from grpo_gsm8k.children.no_network import leave_network; sys.exit(not leave_network())"


@pytest.fixture
def child() -> Iterator[LimitedChild]:
    found = LimitedChild(MODULE, [], LIMITS)
    yield found
    found.close()


def test_answers_come_back_and_prints_do_not_disturb_them(child: LimitedChild) -> None:
    assert child.call({"text": "ü\n", "number": 1.5}) == {"text": "ü\n", "number": 1.5}
    assert child.call("print") == "printed"
    assert child.call("x" * 1_000_000) == "x" * 1_000_000


@pytest.mark.parametrize(("request_", "kind"), [("sleep", "time"), ("allocate", "memory"), ("exit", "exit")])
def test_a_failed_child_is_replaced(child: LimitedChild, request_: str, kind: str) -> None:
    first = child.call("pid")
    with pytest.raises(ChildError) as caught:
        child.call(request_)
    assert caught.value.kind == kind
    assert not psutil.pid_exists(first)
    assert child.call("pid") != first


def test_cpu_time_is_limited_on_its_own() -> None:
    child = LimitedChild(MODULE, [], Limits(wall_s=120, cpu_s=0.5, memory_mb=1024))
    with pytest.raises(ChildError, match="CPU time"):
        child.call("spin")
    child.close()


def test_an_exception_is_reported_and_the_child_goes_on(child: LimitedChild) -> None:
    before = child.call("pid")
    with pytest.raises(ChildError, match="ValueError: bad input") as caught:
        child.call("raise")
    assert caught.value.kind == "error"
    assert child.call("pid") == before


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[:2]


def test_a_child_has_no_network_unless_it_is_allowed(child: LimitedChild, server: tuple[str, int]) -> None:
    if subprocess.call([sys.executable, "-c", PROBE]):
        pytest.skip("this kernel lets no process leave its network")
    with pytest.raises(ChildError, match="unreachable"):
        child.call(["connect", *server])
    allowed = LimitedChild(MODULE, [], Limits(wall_s=30, memory_mb=1024, network=True))
    assert allowed.call(["connect", *server]) == "connected"
    allowed.close()


def test_a_child_gets_no_keys_and_a_limited_number_of_files(
    child: LimitedChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert "PATH" in child.call("environment")
    assert "OPENAI_API_KEY" not in child.call("environment")
    with pytest.raises(ChildError, match="Too many open files"):
        child.call("many files")


def test_a_child_that_cannot_start_gives_its_reason() -> None:
    with pytest.raises(ChildError, match="ImportError: cannot start") as caught:
        LimitedChild(MODULE, ["fail"], LIMITS).call(1)
    assert caught.value.kind == "start"


def test_a_child_ends_with_its_parent() -> None:
    code = (
        "import time; from grpo_gsm8k.children.limited_child import LimitedChild, Limits\n"
        f"child = LimitedChild({MODULE!r}, [], Limits(wall_s=600, memory_mb=1024))\n"
        "print(child.call('pid'), flush=True); child.call('sleep')"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.02)
