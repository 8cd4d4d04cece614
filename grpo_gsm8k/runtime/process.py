"""Worker processes as seen by the process that starts them.

The only module that starts processes with multiprocessing. The rest of the project uses `Worker` alone, which may also
stand for a process on another machine (`cluster/`).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from grpo_gsm8k.children.parent_death import PARENT
from grpo_gsm8k.transport.channel import Channel
from grpo_gsm8k.transport.protocol import Crashed, Heartbeat, Ready, Stop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from multiprocessing.process import BaseProcess

# multiprocessing's resource tracker cleans up after killed workers; its warnings about that are expected.
IGNORE_LEAKS = "ignore:resource_tracker:UserWarning"
POLL_SECONDS = 0.2

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds until Ready, and seconds without any message or, while busy, without progress."""

    start_s: float
    progress_s: float


class WorkerProcess(Protocol):
    """A worker's process, here or on another machine."""

    @property
    def pid(self) -> int | None:
        """Process id; None if it is not known yet."""

    @property
    def exit_reason(self) -> str:
        """Why it ended."""

    @property
    def machine_lost(self) -> bool:
        """Whether it ended because its machine is gone."""

    @property
    def here(self) -> bool:
        """Whether it is on this machine."""

    def join(self, timeout: float) -> None:
        """Wait until it has ended, for at most `timeout` seconds."""

    def kill(self) -> None:
        """End it at once."""


class ChildProcess:
    """A process that this one has started."""

    machine_lost = False
    here = True

    def __init__(self, process: BaseProcess) -> None:
        """`process` was started."""
        self.pid = process.pid
        self._process: BaseProcess | None = process  # None once it was killed and reaped
        self._exit_code: int | None = None

    @property
    def exit_reason(self) -> str:
        """`exit code <N>` of an ended process, negative for a signal."""
        return f"exit code {self._exit_code if self._process is None else self._process.exitcode}"

    def join(self, timeout: float) -> None:
        """Wait until it has ended, for at most `timeout` seconds."""
        if self._process is not None:
            self._process.join(timeout)

    def kill(self) -> None:
        """End it at once, even if it is stopped, reap it, and free what is held for it."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._exit_code = self._process.exitcode
            self._process.close()
            self._process = None


class Worker:
    """A process with its own new channel; a replacement gets both new."""

    def __init__(self, name: str, process: WorkerProcess, channel: Channel, deadlines: Deadlines) -> None:
        """Called by `spawn`, and by the placement on other machines."""
        self.name = name
        self.channel = channel
        self.ready = False
        self.held = False  # it waits for `release`; until then it cannot be overdue
        self.crash: Crashed | None = None
        self.beat = Heartbeat(progress=-1, busy=False, busy_s=0.0, clock=0.0)
        self._process = process
        self._deadlines = deadlines
        self._started = self._last_message = self._progressed = time.monotonic()

    @property
    def pid(self) -> int | None:
        """Process id; None for one on another machine that has not connected yet."""
        return self._process.pid

    @property
    def here(self) -> bool:
        """Whether it is on this machine."""
        return self._process.here

    @property
    def exit_reason(self) -> str:
        """Why it ended: `exit code <N>`, negative for a signal, or what is known of another machine."""
        return self._process.exit_reason

    @property
    def machine_lost(self) -> bool:
        """Whether it ended because its machine is gone."""
        return self._process.machine_lost

    def release(self, message: object) -> None:
        """Send the message that the worker waits for; its time until Ready counts from now."""
        self.held = False
        self._started = time.monotonic()
        self.channel.send(message)

    def observe(self, message: object) -> None:
        """Update the worker's state from a message that it sent."""
        now = self._last_message = time.monotonic()
        if isinstance(message, Ready):
            self.ready = True
            self._progressed = now
        elif isinstance(message, Heartbeat):
            if message.progress != self.beat.progress or not message.busy:
                self._progressed = now
            self.beat = message
        elif isinstance(message, Crashed):
            self.crash = message

    def overdue(self) -> str:
        """Return the reason why the worker counts as stuck, or an empty string."""
        now = time.monotonic()
        if self.held:
            return ""
        if not self.ready:
            late = now - self._started > self._deadlines.start_s
            return f"not ready after {self._deadlines.start_s:g} s" if late else ""
        if now - self._last_message > self._deadlines.progress_s:
            return f"silent for {self._deadlines.progress_s:g} s"
        if now - self._progressed > self._deadlines.progress_s:
            return f"no progress for {self._deadlines.progress_s:g} s"
        return ""

    def excuse(self) -> None:
        """Let all deadlines begin again: the process that watches them was not awake."""
        self._started = self._last_message = self._progressed = time.monotonic()

    def join(self, timeout: float) -> None:
        """Wait until the process has ended, for at most `timeout` seconds."""
        self._process.join(timeout)

    def kill(self) -> None:
        """End the process at once, even if it is stopped."""
        self._process.kill()


Deliver = Callable[[Worker, object], None]


class EventQueue:
    """Messages of all workers in the order of arrival; None from a worker means that its channel has ended."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[tuple[Worker, object]] = queue.SimpleQueue()

    def deliver(self, worker: Worker, message: object) -> None:
        """Add a message; called in the threads of the channels."""
        self._events.put((worker, message))

    def next(self) -> tuple[Worker, object] | None:
        """Return the next message and its sender, or None if there is none within POLL_SECONDS."""
        try:
            return self._events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return None


def spawn(
    name: str,
    target: Callable[..., None],
    arguments: tuple[Any, ...],
    environment: Mapping[str, str],
    deadlines: Deadlines,
    deliver: Deliver,
) -> Worker:
    """Start `target(reader, writer, *arguments)` in a new process.

    A thread of the channel calls `deliver` for each message, and with None when the channel ends.
    """
    child_reader, parent_writer = _SPAWN.Pipe(duplex=False)
    parent_reader, child_writer = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=target, args=(child_reader, child_writer, *arguments), name=name)
    with _environment({**environment, "PYTHONWARNINGS": IGNORE_LEAKS, PARENT: str(os.getpid())}):
        process.start()
    # The child now holds the only other ends, so its death ends both pipes of our channel.
    child_reader.close()
    child_writer.close()
    worker: Worker

    def on_message(message: object) -> None:
        deliver(worker, message)

    channel = Channel(parent_reader, parent_writer, start=False, deliver=on_message, on_closed=lambda: on_message(None))
    worker = Worker(name, ChildProcess(process), channel, deadlines)
    channel.start()
    return worker


def end_workers(workers: Sequence[Worker], grace_s: float = 0.0) -> None:
    """Kill the workers; if `grace_s` is positive, ask them to stop first and wait that many seconds for all of them."""
    if grace_s:
        for worker in workers:
            worker.channel.send(Stop())
    deadline = time.monotonic() + grace_s
    for worker in workers:
        if grace_s:
            worker.join(max(0.0, deadline - time.monotonic()))
        worker.kill()


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables while a process starts: libraries read them when they are imported."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
