"""One child process as the supervisor sees it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.transport.channel import Channel
from grpo_gsm8k.transport.protocol import Heartbeat, Ready

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from multiprocessing.process import BaseProcess

# The tracker process that the first start brings up removes what killed workers leave; it need not talk about it.
IGNORE_LEAKS = "ignore:resource_tracker:UserWarning"

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds until Ready, and seconds without a sign of life or, while busy, without progress."""

    start_s: float
    progress_s: float


class Worker:
    """A child with its own fresh channel; both are thrown away together."""

    def __init__(self, name: str, process: BaseProcess, channel: Channel, deadlines: Deadlines) -> None:
        """Use `spawn`."""
        self.name = name
        self.process = process
        self.channel = channel
        self.ready = False
        self.closed = False  # the channel's end was seen
        self.beat = Heartbeat(progress=-1, busy=False, busy_s=0.0, clock=0.0)
        self._deadlines = deadlines
        self._started = self._heard = self._progressed = time.monotonic()

    def heard(self, message: object) -> None:
        """Note a sign of life."""
        now = self._heard = time.monotonic()
        if isinstance(message, Ready):
            self.ready = True
            self._progressed = now
        elif isinstance(message, Heartbeat):
            if message.progress != self.beat.progress or not message.busy:
                self._progressed = now
            self.beat = message

    def overdue(self) -> str:
        """Why the worker counts as stuck, or an empty string."""
        now = time.monotonic()
        if not self.ready:
            late = now - self._started > self._deadlines.start_s
            return f"not ready after {self._deadlines.start_s:g} s" if late else ""
        if now - self._heard > self._deadlines.progress_s:
            return f"silent for {self._deadlines.progress_s:g} s"
        if now - self._progressed > self._deadlines.progress_s:
            return f"no progress for {self._deadlines.progress_s:g} s"
        return ""

    def kill(self) -> None:
        """End the process at once (also a stopped one) and reap it."""
        self.process.kill()
        self.process.join()


Deliver = Callable[[Worker, object], None]


def spawn(
    name: str,
    target: Callable[..., None],
    arguments: tuple[Any, ...],
    environment: Mapping[str, str],
    deadlines: Deadlines,
    deliver: Deliver,
) -> Worker:
    """Start `target(reader, writer, *arguments)` in a new process.

    `deliver` is called, in a thread of the channel, for each message and with None when the channel ends.
    """
    child_reader, parent_writer = _SPAWN.Pipe(duplex=False)
    parent_reader, child_writer = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=target, args=(child_reader, child_writer, *arguments), name=name)
    with _environment({**environment, "PYTHONWARNINGS": IGNORE_LEAKS}):
        process.start()
    # The child holds the only other ends now: its death is the end of the file for both threads of our channel.
    child_reader.close()
    child_writer.close()
    worker: Worker

    def on_message(message: object) -> None:
        deliver(worker, message)

    started = Channel(parent_reader, parent_writer, start=False, deliver=on_message, on_closed=lambda: on_message(None))
    worker = Worker(name, process, started, deadlines)
    started.start()
    return worker


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the time of a process start: libraries read them while they are imported."""
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
