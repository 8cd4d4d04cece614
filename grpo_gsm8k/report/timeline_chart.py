"""The timeline of a run for the page: one row per worker, and the stretches of time that are drawn."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from grpo_gsm8k.report import words
from grpo_gsm8k.report.material import Run
from grpo_gsm8k.tracking.run_folder import RunFolder
from grpo_gsm8k.tracking.timeline import ORCHESTRATOR

MAX_SPANS = 1500  # of all runs together: about 25 bytes each in the page
STRETCH = 8  # updates in a stretch of a long run
UPDATE = "update"
VALIDATIONS = "validations"


@dataclass(frozen=True, slots=True)
class Bar:
    """A span of a row; times in seconds since the first event. A mark has no duration."""

    row: str
    name: str
    start: float
    seconds: float
    version: int

    @property
    def end(self) -> float:
        """The end of the span."""
        return self.start + self.seconds


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the run's time."""

    title: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class TimelineChart:
    """The timeline of one run: all of it, or stretches of it."""

    run: str
    rows: tuple[str, ...]
    bars: tuple[Bar, ...]
    stretches: tuple[Stretch, ...]
    caption: str
    words: tuple[str, ...]

    def page_data(self) -> dict[str, Any]:
        """Return the chart as short lists of numbers, with times in milliseconds."""
        names = sorted({bar.name for bar in self.bars})
        return {
            "run": self.run,
            "rows": self.rows,
            "names": names,
            "bars": [
                [self.rows.index(b.row), names.index(b.name), _ms(b.start), _ms(b.seconds), b.version]
                for b in self.bars
            ],
            "stretches": [[s.title, _ms(s.start), _ms(s.end)] for s in self.stretches],
        }


def timeline_charts(runs: Sequence[Run], most: int = MAX_SPANS) -> list[TimelineChart]:
    """Return one chart per run that recorded a timeline; `most` bars are shared equally."""
    read = [(run.name, read_bars(RunFolder(run.folder).trace_json)) for run in runs]
    known = [(name, bars) for name, bars in read if any(bar.seconds for bar in bars)]
    return [_chart(name, bars, most // len(known)) for name, bars in known]


def read_bars(path: Path) -> list[Bar]:
    """Return the bars of a trace.json, in order of time; lines that are being written are skipped."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    events = [event for event in map(_event, lines) if event is not None]
    rows = {e["pid"]: str(e["args"]["name"]) for e in events if e.get("name") == "process_name" and "pid" in e}
    bars = sorted(_bars(events, rows), key=lambda bar: bar.start)
    first = bars[0].start if bars else 0.0
    return [Bar(b.row, b.name, b.start - first, b.seconds, b.version) for b in bars]


def _event(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line.rstrip(","))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _bars(events: Sequence[Mapping[str, Any]], rows: Mapping[int, str]) -> Iterator[Bar]:
    """Yield the spans, the validations, which begin and end in separate events, and the marks."""
    begun: dict[str, Mapping[str, Any]] = {}
    for event in events:
        row, version = rows.get(event.get("pid", 0), "unknown"), (event.get("args") or {}).get("version", -1)
        kind = event.get("ph")
        if kind == "X":
            yield Bar(row, str(event["name"]), event["ts"] / 1e6, event["dur"] / 1e6, version)
        elif kind == "i":
            yield Bar(row, str(event["name"]), event["ts"] / 1e6, 0.0, version)
        elif kind == "b":
            begun[event["id2"]["local"]] = event
        elif kind == "e" and (start := begun.pop(event["id2"]["local"], None)) is not None:
            seconds = (event["ts"] - start["ts"]) / 1e6
            yield Bar(row, "validation", start["ts"] / 1e6, seconds, start["args"]["version"])


def _chart(name: str, bars: Sequence[Bar], most: int) -> TimelineChart:
    parts = stretches(bars, most)
    if complete := len(bars) <= most:
        parts.append(Stretch("whole run", 0.0, max(bar.end for bar in bars)))
    drawn = [bar for bar in bars if any(_overlap(bar, part) for part in parts)][:most]
    laned = tuple(_in_lanes(drawn))
    rows = tuple(sorted({bar.row for bar in laned}, key=_rank))
    caption = f"{len(laned):,} of {len(bars):,} recorded spans and events. "
    caption += "A width is a time: point at a bar for its seconds."
    if not complete:
        caption += " The whole is in trace.json, for ui.perfetto.dev."
    return TimelineChart(name, rows, laned, tuple(parts), caption, tuple(_shares(bars)))


def stretches(bars: Sequence[Bar], most: int) -> list[Stretch]:
    """Return the start, and the first, middle and last updates; a run of few updates has one stretch per session.

    Stretches become shorter until their bars are at most `most`.
    """
    updates = [bar for bar in bars if bar.name == UPDATE]
    if not updates:
        return [Stretch("start", 0.0, max(bar.end for bar in bars))]
    starts = _session_starts(bars)
    for size in range(STRETCH, 0, -1):
        found = [Stretch("start, to the first update", 0.0, updates[0].end), *_of_updates(updates, starts, size)]
        if sum(any(_overlap(bar, part) for part in found) for bar in bars) <= most:
            break
    return found


def _session_starts(bars: Sequence[Bar]) -> list[float]:
    """Return when the run was started, and each time that it was resumed."""
    return [bar.start for bar in bars if bar.row == ORCHESTRATOR and bar.name == "start"]


def _of_updates(updates: Sequence[Bar], starts: Sequence[float], size: int) -> list[Stretch]:
    """Return stretches of `size` updates, which do not reach over a pause before the run was resumed."""
    sessions = [list(group) for _, group in groupby(updates, key=lambda bar: bisect_right(starts, bar.start))]
    if len(updates) <= 2 * size:
        return [_stretch("", part) for part in sessions]
    middle = updates[len(updates) // 2]
    session = next(part for part in sessions if middle in part)
    first = max(0, min(session.index(middle) - size // 2, len(session) - size))
    parts = {"first": sessions[0][:size], "middle": session[first : first + size], "last": sessions[-1][-size:]}
    return [_stretch(f"{name}: ", part) for name, part in parts.items()]


def _stretch(name: str, updates: Sequence[Bar]) -> Stretch:
    first, last = updates[0], updates[-1]
    title = f"update {first.version + 1}" if first is last else f"updates {first.version + 1} to {last.version + 1}"
    return Stretch(name + title, first.start, last.end)


def _overlap(bar: Bar, part: Stretch) -> bool:
    return bar.start <= part.end and bar.end >= part.start


def _in_lanes(bars: Sequence[Bar]) -> Iterator[Bar]:
    """Yield the bars; validations that overlap get rows of their own."""
    ends: list[float] = []
    for bar in bars:
        if bar.row != VALIDATIONS:
            yield bar
            continue
        lane = next((at for at, end in enumerate(ends) if end <= bar.start), len(ends))
        ends[lane : lane + 1] = [bar.end]
        row = VALIDATIONS if lane == 0 else f"{VALIDATIONS} ({lane + 1})"
        yield Bar(row, bar.name, bar.start, bar.seconds, bar.version)


def _rank(row: str) -> tuple[int, int, str]:
    """Order rows: actors by number, learner, validations, orchestrator."""
    kind = next((at for at, name in enumerate(("actor", "learner", VALIDATIONS)) if row.startswith(name)), 3)
    number = row.rpartition("-")[2]
    return kind, int(number) if number.isdigit() else 0, row


def _shares(bars: Sequence[Bar]) -> Iterator[str]:
    """Yield for each worker the share of the run's time, without pauses, that each kind of span takes."""
    starts = _session_starts(bars)
    sessions = [list(group) for _, group in groupby(bars, key=lambda bar: bisect_right(starts, bar.start))]
    total = math.fsum(max(bar.end for bar in part) - part[0].start for part in sessions)
    for row in sorted({bar.row for bar in bars if bar.row != ORCHESTRATOR}, key=_rank):
        own: dict[str, list[Bar]] = {}
        for bar in (bar for bar in bars if bar.row == row):
            own.setdefault(bar.name, []).append(bar)
        seconds = {name: _covered(found) for name, found in own.items()}
        longest = sorted(seconds, key=lambda name: -seconds[name])
        parts = [f"{name} {words.percent(seconds[name] / total)}" for name in longest if seconds[name]]
        yield f"{row}: {', '.join(parts)} of {words.duration(total)}"


def _covered(bars: Sequence[Bar]) -> float:
    """Return the time in which at least one of the bars was going on; they are in order of their starts."""
    total, reached = 0.0, -math.inf
    for bar in bars:
        total += max(0.0, bar.end - max(bar.start, reached))
        reached = max(reached, bar.end)
    return total


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
