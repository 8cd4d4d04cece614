"""`trace.json`: who did what when, for ui.perfetto.dev or chrome://tracing.

Google's Trace Event Format, as a JSON array that is complete after every event: a killed run leaves a file that opens.
Written by the orchestrator out of what the workers report; times are Unix times in microseconds.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.transport.protocol import Span

ORCHESTRATOR = "orchestrator"
_TRACKS = (ORCHESTRATOR, "learner", "validations")  # and then the actors
_END = b"\n]\n"


class Timeline:
    """An append-only trace with one row for each worker."""

    def __init__(self, path: Path) -> None:
        """Open or create; what a kill or a full disk tore off the end is dropped."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o666)
        lines = [line.rstrip(b",") for line in path.read_bytes().splitlines() if line.startswith(b"{")]
        events = [line for line in lines if _is_whole(line)]
        self._size = 0
        self._empty = not events
        self._write(b"[" + b",".join(b"\n" + event for event in events) + _END)
        self._known: set[str] = set()

    def span(self, worker: str, span: Span) -> None:
        """One stretch of a worker's time."""
        place = self._place(worker)
        what = {"ph": "X", "name": span.name, "ts": _us(span.start_s), "dur": _us(span.seconds)}
        self._add({**what, **place, "args": {"version": span.version}})

    def validation(self, version: int, end_s: float, seconds: float) -> None:
        """From the submission of a validation to its last answer; two of them may overlap."""
        what = {"cat": "validation", "name": "validation", "id2": {"local": str(version)}, **self._place("validations")}
        self._add({"ph": "b", "ts": _us(end_s - seconds), **what, "args": {"version": version}})
        self._add({"ph": "e", "ts": _us(end_s), **what})

    def mark(self, name: str, time_s: float, fields: dict[str, Any]) -> None:
        """Something that happened at one moment."""
        self._add({"ph": "i", "s": "t", "name": name, "ts": _us(time_s), **self._place(ORCHESTRATOR), "args": fields})

    def close(self) -> None:
        """A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _place(self, worker: str) -> dict[str, int]:
        """The worker's row, named when it is used for the first time."""
        row = _TRACKS.index(worker) if worker in _TRACKS else len(_TRACKS) + int(worker.rpartition("-")[2])
        place = {"pid": row + 1, "tid": row + 1}  # viewers hide process 0
        if worker not in self._known:
            self._known.add(worker)
            for name in ("process_name", "thread_name"):
                self._add({"ph": "M", "name": name, **place, "args": {"name": worker}})
        return place

    def _add(self, event: dict[str, Any]) -> None:
        """Over the array's end, with a new one. What does not fit on the disk is left out: a run needs no trace."""
        text = (b"\n" if self._empty else b",\n") + json.dumps(event, allow_nan=False).encode() + _END
        before = self._size
        self._size -= len(_END)
        try:
            self._write(text)
            self._empty = False
        except OSError:
            self._size = before - len(_END)
            os.ftruncate(self._fd, self._size)
            self._write(_END)

    def _write(self, text: bytes) -> None:
        while text:
            written = os.pwrite(self._fd, text, self._size)
            self._size += written
            text = text[written:]
        os.ftruncate(self._fd, self._size)


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
