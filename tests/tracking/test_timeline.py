"""The trace is a complete JSON array after every event, a kill and a full disk."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from grpo_gsm8k.tracking.timeline import Timeline
from grpo_gsm8k.transport.protocol import Span


def read(path: Path) -> list[dict[str, Any]]:
    events = json.loads(path.read_text())
    assert isinstance(events, list)
    return events


def test_it_is_whole_after_every_event(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    timeline = Timeline(path)
    assert read(path) == []
    timeline.span("learner", Span("update", 3, 100.0, 0.25))
    assert read(path)[-1] == {
        "ph": "X",
        "name": "update",
        "ts": 100_000_000,
        "dur": 250_000,
        "pid": 2,
        "tid": 2,
        "args": {"version": 3},
    }
    timeline.span("actor-1", Span("generate", 3, 101.0, 0.5))
    timeline.validation(3, 110.0, 4.0)
    timeline.span("checkpoints", Span("checkpoint", 3, 110.0, 0.5))  # of the learner, beside its other spans
    timeline.mark("end", 111.0, {"status": "done"})
    events = read(path)
    names = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    assert names == {1: "orchestrator", 2: "learner", 3: "validations", 5: "actor-1", 1000: "checkpoints"}
    assert [(e["ph"], e["ts"]) for e in events if e.get("cat") == "validation"] == [("b", 106e6), ("e", 110e6)]
    timeline.close()
    timeline.close()


@pytest.mark.parametrize("torn", [0, 1, 3, 10, 40])
def test_a_torn_end_is_dropped_and_appending_continues(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "trace.json"
    timeline = Timeline(path)
    for start in (1.0, 2.0):
        timeline.span("learner", Span("update", 0, start, 0.5))
    timeline.close()
    before = read(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size - torn])
    again = Timeline(path)
    kept = read(path)
    assert kept == before[: len(kept)]
    assert len(before) - len(kept) == (1 if torn > 3 else 0)
    again.span("learner", Span("update", 1, 3.0, 0.5))
    assert [e["ts"] for e in read(path) if e["ph"] == "X"][-1] == 3_000_000
    again.close()


def test_a_full_disk_drops_the_event_without_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.json"
    timeline = Timeline(path)
    timeline.mark("start", 1.0, {})
    pwrite, left = os.pwrite, [10]

    def full(descriptor: int, text: bytes, at: int) -> int:
        """Simulate a disk with ten free bytes; overwriting existing bytes still works."""
        if len(text) > 3 and not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = text[: left[0]] if len(text) > 3 else text
        left[0] = 0
        return pwrite(descriptor, taken, at)

    monkeypatch.setattr(os, "pwrite", full)
    timeline.mark("lost", 2.0, {})
    monkeypatch.setattr(os, "pwrite", pwrite)
    timeline.mark("end", 3.0, {})
    assert [e["name"] for e in read(path) if e["ph"] == "i"] == ["start", "end"]


def test_a_span_ends_now() -> None:
    started = time.monotonic()
    span = Span.since("update", 5, started)
    assert span.seconds >= 0
    assert abs(span.start_s + span.seconds - time.time()) < 60
