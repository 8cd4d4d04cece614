"""Channels and workers with real processes: killed in the middle of a message, stopped, orphaned."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import pytest

from grpo_gsm8k.runtime.process import Deadlines, Worker, spawn
from grpo_gsm8k.transport.channel import Channel
from grpo_gsm8k.transport.protocol import Heartbeat, Ready
from tests.conftest import REPO, patience

LONG = 60.0


def echo(reader: Connection, writer: Connection) -> None:
    channel = Channel(reader, writer, on_closed=lambda: os._exit(1))
    channel.send(Ready())
    while True:
        message = channel.receive(1.0)
        if message is not None:
            channel.send(message)


def die_in_mid_message(reader: Connection, writer: Connection) -> None:
    """Announce a message of 50 MB, write 30 kB of it, and die."""
    payload = np.zeros(50 * 2**20, dtype=np.uint8)
    os.write(writer.fileno(), len(payload).to_bytes(4, "big"))
    os.write(writer.fileno(), payload[:30_000].tobytes())
    os.kill(os.getpid(), signal.SIGKILL)


def start(target: Callable[..., None], inbox: queue.SimpleQueue[object], deadlines: Deadlines) -> Worker:
    return spawn("child", target, (), {"GRPO_TEST": "1"}, deadlines, lambda worker, message: inbox.put(message))


def test_messages_of_any_size_arrive_in_order() -> None:
    inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    worker = start(echo, inbox, Deadlines(LONG, LONG))
    assert inbox.get(timeout=LONG) == Ready()
    big = np.arange(2_000_000)
    for message in ("a", big, "b"):
        worker.channel.send(message)
    assert inbox.get(timeout=LONG) == "a"
    assert np.array_equal(inbox.get(timeout=LONG), big)  # type: ignore[arg-type]
    assert inbox.get(timeout=LONG) == "b"
    worker.kill()
    assert inbox.get(timeout=LONG) is None  # the end of the channel
    assert "GRPO_TEST" not in os.environ


def test_death_in_mid_message_blocks_no_reader() -> None:
    inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    worker = start(die_in_mid_message, inbox, Deadlines(LONG, LONG))
    assert inbox.get(timeout=LONG) is None
    worker.join(LONG)
    assert worker.exit_reason == "exit code -9"  # the fault fired
    worker.channel.send("lost")  # neither blocks nor raises


def held() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    me = psutil.Process()
    return me.num_fds(), me.num_threads()


def test_replaced_workers_leave_neither_descriptors_nor_threads() -> None:
    """A long run on a shaky machine replaces many."""
    resource_tracker.ensure_running()  # a process of multiprocessing's, which stays
    before = held()
    for how in (die_in_mid_message, echo, echo):
        inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        worker = start(how, inbox, Deadlines(LONG, LONG))
        while inbox.get(timeout=LONG) is not None:
            worker.kill()
        worker.kill()
        assert worker.exit_reason == "exit code -9"
        until = time.monotonic() + LONG
        while any(now > then for now, then in zip(held(), before, strict=True)) and time.monotonic() < until:
            time.sleep(0.01)  # its threads are about to end
    assert all(now <= then for now, then in zip(held(), before, strict=True))


def test_a_stopped_worker_is_overdue_and_can_be_killed() -> None:
    inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    deadline = patience(0.3)
    worker = start(echo, inbox, Deadlines(LONG, deadline))
    worker.observe(inbox.get(timeout=LONG))
    assert worker.ready
    assert worker.overdue() == ""
    os.kill(worker.pid, signal.SIGSTOP)
    time.sleep(deadline + 0.1)
    assert worker.overdue() == f"silent for {deadline:g} s"
    worker.kill()
    assert worker.exit_reason == "exit code -9"


def wait_for_a_message(reader: Connection, writer: Connection) -> None:
    channel = Channel(reader, writer, on_closed=lambda: os._exit(1))
    while channel.receive(1.0) is None:
        pass
    time.sleep(LONG)  # is never ready


def test_the_deadline_of_a_held_worker_counts_from_its_release() -> None:
    deadline = patience(0.5)
    worker = start(wait_for_a_message, queue.SimpleQueue(), Deadlines(deadline, LONG))
    worker.held = True
    time.sleep(deadline + 0.1)
    assert worker.overdue() == ""
    worker.release("go on")
    assert worker.overdue() == ""
    time.sleep(deadline + 0.1)
    assert worker.overdue() == f"not ready after {deadline:g} s"
    worker.kill()


@pytest.mark.parametrize(("busy", "overdue"), [(True, "no progress for {:g} s"), (False, "")])
def test_alive_is_not_progress(busy: bool, overdue: str) -> None:
    deadline = patience(1.0)
    inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    worker = start(echo, inbox, Deadlines(LONG, deadline))
    worker.observe(inbox.get(timeout=LONG))
    for _ in range(6):
        worker.observe(Heartbeat(progress=7, busy=busy, busy_s=0.0, clock=0.0))
        time.sleep(deadline / 4)
    assert worker.overdue() == overdue.format(deadline)
    worker.kill()


@pytest.mark.parametrize("name", ["actor_main", "learner_main"])
def test_children_die_with_a_killed_parent(name: str, tmp_path: Path) -> None:
    """A worker whose channel is not open yet dies as well."""
    code = f"""
import os, sys, time
from pathlib import Path
from grpo_gsm8k.runtime.process import Deadlines, spawn
from grpo_gsm8k.runtime.worker import WorkerSetup, {name}
if __name__ == "__main__":
    setup = WorkerSetup(os.getpid(), Path(sys.argv[1]) / "log", ())
    worker = spawn("w", {name}, (setup, None), {{}}, Deadlines(60, 60), lambda w, m: None)
    print(worker.pid, flush=True)
    time.sleep(60)
"""
    script = tmp_path / "parent.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running()
