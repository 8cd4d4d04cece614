"""`trace.json`: timeline of all processes, for ui.perfetto.dev or chrome://tracing.

The file is a JSON array in Google's Trace Event Format. It is complete after every event, so that a killed run leaves
a valid file. The orchestrator writes it from the workers' reports; times are Unix times in microseconds.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.transport.protocol import Span

ORCHESTRATOR = "orchestrator"
CHECKPOINTS = "checkpoints"
WEIGHTS = "weights of "  # followed by an actor's name: from publishing to live on another machine
_TRACKS = (ORCHESTRATOR, "learner", "validations")  # rows in this order; the actors follow
_LAST_ROW = 999  # after all actors: earlier versions had no row of checkpoints, and may have begun the file
_END = b"\n]\n"


class Timeline:
    """An append-only trace with one row per worker."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; drop an event that a kill or a full disk cut off."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o666)
        lines = [line.rstrip(b",") for line in path.read_bytes().splitlines() if line.startswith(b"{")]
        events = [line for line in lines if _is_whole(line)]
        self._size = 0
        self._empty = not events
        self._write(b"[" + b",".join(b"\n" + event for event in events) + _END)
        self._known: set[str] = set()

    def span(self, worker: str, span: Span) -> None:
        """Draw a span of a worker's time."""
        place = self._place(worker)
        what = {"ph": "X", "name": span.name, "ts": _us(span.start_s), "dur": _us(span.seconds)}
        self._add({**what, **place, "args": {"version": span.version}})

    def validation(self, version: int, end_s: float, seconds: float) -> None:
        """Draw a validation from submission to last answer. Validations may overlap, so they are async events."""
        what = {"cat": "validation", "name": "validation", "id2": {"local": str(version)}, **self._place("validations")}
        self._add({"ph": "b", "ts": _us(end_s - seconds), **what, "args": {"version": version}})
        self._add({"ph": "e", "ts": _us(end_s), **what})

    def mark(self, name: str, time_s: float, fields: dict[str, Any]) -> None:
        """Draw an instant event."""
        self._add({"ph": "i", "s": "t", "name": name, "ts": _us(time_s), **self._place(ORCHESTRATOR), "args": fields})

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _place(self, worker: str) -> dict[str, int]:
        """Return the worker's row; name it on first use."""
        if worker == CHECKPOINTS:
            row = _LAST_ROW
        elif worker in _TRACKS:
            row = _TRACKS.index(worker)
        else:
            first = _LAST_ROW + 1 if worker.startswith(WEIGHTS) else len(_TRACKS)
            row = first + int(worker.rpartition("-")[2])
        place = {"pid": row + 1, "tid": row + 1}  # viewers hide process 0
        if worker not in self._known:
            self._known.add(worker)
            for name in ("process_name", "thread_name"):
                self._add({"ph": "M", "name": name, **place, "args": {"name": worker}})
        return place

    def _add(self, event: dict[str, Any]) -> None:
        """Overwrite the array's closing bracket by an event and a new bracket.

        If the disk is full, the event is dropped: a run does not depend on its trace.
        """
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
