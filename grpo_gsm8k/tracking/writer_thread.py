"""Copies of a run's records for other programs: the interface of a writer, and the thread that each one has.

No failure or delay of a writer stops or slows the run, or the other writers.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

QUEUE_RECORDS = 2048  # hours of updates at one per 10 s
CLOSE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the run after `updates` policy updates. `values` has finite numbers and those of its axis.

    `completions` is the Parquet file of its completions, which may be missing. A rollback makes later records void.
    """

    kind: Literal["update", "validation", "regression", "rollback"]
    updates: int
    values: Mapping[str, float]
    completions: Path | None = None


class TrackerWriter(Protocol):
    """A destination of records. Its thread calls all methods but `abandon`, which the closing thread calls.

    `problem` is a failure that did not end the writer; `name` is used in events, `label` in messages.
    """

    name: str
    label: str
    problem: str

    def open(self) -> None:
        """Connect, or create the files."""

    def write(self, record: Record) -> None:
        """Write one record."""

    def finish(self, exit_code: int, summary: Mapping[str, Any]) -> None:
        """Write what is left, and close. `summary` is the content of summary.json."""

    def abandon(self) -> None:
        """Release what `open` acquired, because the thread has failed or did not finish in time."""


@dataclass(frozen=True, slots=True)
class _End:
    exit_code: int
    summary: Mapping[str, Any]


class WriterThread:
    """A writer on a daemon thread. Only `join` waits for it, for a limited time."""

    def __init__(self, writer: TrackerWriter) -> None:
        """Start the thread."""
        self.dropped = 0
        self.reported = False  # set by the caller when it has shown `problem`
        self._writer: Final = writer
        self._failure = ""  # the first one, also of the writer: an abandoned one may report another later
        self._end: _End | None = None
        self._finished = False
        self._queue: queue.Queue[Record | _End] = queue.Queue(QUEUE_RECORDS)
        self._thread = threading.Thread(target=self._write_all, name=f"{writer.name}-writer", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The writer's name in events."""
        return self._writer.name

    @property
    def problem(self) -> str:
        """The first failure or delay; "" without one."""
        late = f"{self._writer.label} is too slow, records are dropped" if self.dropped else ""
        return self._failure or self._writer.problem or late

    def put(self, record: Record) -> None:
        """Queue one record, or count it as dropped if the queue is full or the thread has ended."""
        try:
            if not self._thread.is_alive():
                raise queue.Full
            self._queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def end(self, exit_code: int, summary: Mapping[str, Any]) -> None:
        """Ask the thread to write all queued records and to finish; never waits."""
        self._end = _End(exit_code, summary)
        with contextlib.suppress(queue.Full):  # `join` tries again
            self._queue.put_nowait(self._end)
            self._end = None

    def join(self, seconds: float) -> None:
        """Wait at most `seconds` for the thread after `end`, then abandon it."""
        deadline = time.monotonic() + seconds
        if self._end is not None:
            with contextlib.suppress(queue.Full):  # the thread hangs or has ended
                self._queue.put(self._end, timeout=max(seconds, 0.01) if self._thread.is_alive() else 0.01)
        self._thread.join(max(deadline - time.monotonic(), 0.01))
        if self._thread.is_alive():
            self._fail(f"{self._writer.label} did not finish within {seconds:.0f} s")
        if not self._finished:
            self.dropped += sum(isinstance(item, Record) for item in list(self._queue.queue))
            self._writer.abandon()

    def _write_all(self) -> None:
        try:
            self._writer.open()
            while isinstance(item := self._queue.get(), Record):
                self._writer.write(item)
            self._writer.finish(item.exit_code, item.summary)
            self._finished = True
        except Exception as error:  # noqa: BLE001 writers raise anything; training continues and the tracker reports it
            self._fail(f"{self._writer.label} stopped: {type(error).__name__}: {error}")

    def _fail(self, problem: str) -> None:
        self._failure = self._failure or self._writer.problem or " ".join(problem.split())
