"""Console output of a run: a live display or plain lines while it runs, and its summary at the end."""

from __future__ import annotations

import os
import sys
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Group

    Metrics = Mapping[str, float | None]

ETA_WINDOW = 20  # the ETA uses the mean duration of this many recent updates
SHOWN = (
    ("reward", "train/reward_mean", ".3f"),
    ("perplexity", "train/perplexity", ".3f"),
    ("token accuracy", "train/token_accuracy", ".1%"),
    ("tokens/s", "rollout/tokens_per_s", ".0f"),
    ("tokens/s", "train/tokens_per_s", ".0f"),
    ("staleness", "rollout/staleness_mean", ".1f"),
    ("max staleness", "rollout/staleness_max", ".0f"),
    ("actor idle", "time/actor_idle_frac", ".0%"),
    ("learner idle", "time/learner_idle_frac", ".0%"),
)
CHANGES = {
    "higher": "higher: the interval at the end lies entirely above the one at the start",
    "lower": "lower: the interval at the end lies entirely below the one at the start",
    "none shown": "no difference shown: the 95 % intervals overlap",
}


class ProgressConsole(Protocol):
    """Display of one run's progress. No call blocks."""

    def step(self, step: int, metrics: Metrics) -> None:
        """Show a finished policy update."""

    def total(self, total_steps: int) -> None:
        """Set the number of updates of the run."""

    def validation(self, version: int, metrics: Metrics) -> None:
        """Show a finished validation."""

    def note(self, text: str) -> None:
        """Show one line permanently, such as a restart or a fallback."""

    def close(self) -> None:
        """Restore the terminal; a second call does nothing."""


def open_console(total_steps: int, start_step: int = 0, stream: TextIO | None = None) -> ProgressConsole:
    """Return a live display if `stream` (default: standard output) is a capable terminal, else plain lines."""
    out = sys.stdout if stream is None else stream
    if out.isatty() and os.environ.get("TERM") != "dumb":
        return LiveConsole(total_steps, start_step, out)
    return PlainConsole(total_steps, start_step, out)


@dataclass(slots=True)
class RunProgress:
    """Latest metrics of a run, formatted for display."""

    total_steps: int
    step: int
    metrics: dict[str, float | None] = field(default_factory=dict)
    validation: str = "-"
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=ETA_WINDOW))

    def add_step(self, step: int, metrics: Metrics) -> None:
        """Store the metrics of a policy update."""
        self.step = step
        self.metrics = dict(metrics)
        if (seconds := metrics.get("time/step_s")) is not None:
            self.durations.append(seconds)

    def add_validation(self, version: int, metrics: Metrics) -> None:
        """Store the metrics of a validation."""
        self.validation = f"{_accuracy(metrics, 'val/')} of version {version}"

    def fields(self) -> list[tuple[str, str]]:
        """Return label and text of every displayed metric."""
        numbers = [(label, self._text(key, form)) for label, key, form in SHOWN if key in self.metrics]
        return [("validation", self.validation), *numbers, ("ETA", self.eta())]

    def eta(self) -> str:
        """Return the estimated time for the remaining updates as h:mm:ss; "-" if unknown."""
        if not self.durations:
            return "-"
        left = max(self.total_steps - self.step, 0) * sum(self.durations) / len(self.durations)
        return _clock(left)

    def _text(self, key: str, form: str) -> str:
        return _number(self.metrics.get(key), form)


class PlainConsole:
    """One plain line per policy update, for logs and pipes."""

    def __init__(self, total_steps: int, start_step: int, stream: TextIO) -> None:
        self._progress = RunProgress(total_steps, start_step)
        self._stream = stream

    def step(self, step: int, metrics: Metrics) -> None:
        """Print the update."""
        self._progress.add_step(step, metrics)
        shown = " | ".join(f"{label} {text}" for label, text in self._progress.fields())
        _print(self._stream, f"step {step}/{self._progress.total_steps} | {shown}")

    def total(self, total_steps: int) -> None:
        """Set the number that the lines show."""
        self._progress.total_steps = total_steps

    def validation(self, version: int, metrics: Metrics) -> None:
        """Print the validation."""
        self._progress.add_validation(version, metrics)
        _print(self._stream, f"validation {self._progress.validation}")

    def note(self, text: str) -> None:
        """Print the text."""
        _print(self._stream, text)

    def close(self) -> None:
        """Do nothing."""


class LiveConsole:
    """A progress bar above the latest metrics; notes and other output scroll above both."""

    def __init__(self, total_steps: int, start_step: int, stream: TextIO) -> None:
        from rich.console import Console  # lazy: the import takes 0.1 s, and only terminals need it
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._progress = RunProgress(total_steps, start_step)
        self._console = Console(file=stream, highlight=False)
        columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, console=self._console)
        self._task = self._bar.add_task("", total=total_steps, completed=start_step)
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=2)
        self._live.start()

    def step(self, step: int, metrics: Metrics) -> None:
        """Advance the bar."""
        self._progress.add_step(step, metrics)
        self._bar.update(self._task, completed=step)

    def total(self, total_steps: int) -> None:
        """Set the length of the bar."""
        self._progress.total_steps = total_steps
        self._bar.update(self._task, total=total_steps)

    def validation(self, version: int, metrics: Metrics) -> None:
        """Update the displayed accuracy."""
        self._progress.add_validation(version, metrics)

    def note(self, text: str) -> None:
        """Print the text above the bar."""
        self._console.print(text, markup=False)

    def close(self) -> None:
        """Draw the last state and restore the terminal."""
        self._live.stop()

    def _render(self) -> Group:
        from rich.console import Group
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for label, text in self._progress.fields():
            table.add_row(label, text)
        return Group(self._bar.get_renderable(), table)


def print_summary(summary: Mapping[str, Any], run_folder: Path, stream: TextIO | None = None) -> None:
    """Print the summary of `Tracker.summary()` on one screen."""
    out = sys.stdout if stream is None else stream
    _print(out, "\n".join(summary_lines(summary, run_folder)))


def summary_lines(summary: Mapping[str, Any], run_folder: Path) -> list[str]:
    """Return the lines of `print_summary`."""
    restarts = summary["restarts"]
    rows = [
        ("status", f"{summary['status']} at step {summary['steps']} of {summary['total_steps']}"),
        ("accuracy at start", _validation(summary["first_validation"])),
        ("accuracy at end", _validation(summary["last_validation"])),
        ("best accuracy", _validation(summary["best_validation"])),
        ("change", CHANGES.get(summary["change"], "unknown: needs two validations")),
        ("wall time", _clock(summary["wall_seconds"])),
        *_expected(summary),
        ("tokens/s", _number(summary["tokens_per_s_mean"], ".0f")),
        ("actor idle", _number(summary["actor_idle_frac_mean"], ".0%")),
        ("learner idle", _number(summary["learner_idle_frac_mean"], ".0%")),
        ("restarts", f"actor {restarts['actor']}, learner {restarts['learner']}"),
        ("run folder", str(run_folder)),
    ]
    width = max(len(label) for label, _ in rows)
    return [f"{label:<{width}}  {text}" for label, text in rows]


def _expected(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a row that compares estimated and measured time and cost, if there was an estimate."""
    made = (summary.get("estimate") or {}).get("initial")
    if made is None:
        return []
    took, price = summary["outcome"], ""
    if made["usd"] is not None and took["usd"] is not None:
        price = f", ${made['usd']:.2f} and ${took['usd']:.2f}"
    seconds = f"{made['step_s']:.3g} s estimated, {_number(took['step_s'], '.3g')} s measured"
    return [("per update", f"{seconds} ({made['hours']:.2g} h and {took['hours']:.2g} h in total{price})")]


def _validation(record: Metrics | None) -> str:
    return "no validation" if record is None else f"{_accuracy(record, '')} of version {record['version']}"


def _accuracy(metrics: Metrics, prefix: str) -> str:
    value, low, high = (metrics.get(f"{prefix}accuracy{end}") for end in ("", "_ci_low", "_ci_high"))
    return f"{_number(value, '.1%')} [95 %: {_number(low, '.1%')} to {_number(high, '.1%')}]"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _print(stream: TextIO, text: str) -> None:
    """Print and flush; characters that the stream cannot encode (in a path, for example) are escaped."""
    encoding = stream.encoding or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
