"""What a person sees: a live display or plain lines while a run goes on, and its summary when it ends."""

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

ETA_WINDOW = 20  # updates whose mean duration predicts the rest
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
    "higher": "higher: the interval at the end lies wholly above the one at the start",
    "lower": "lower: the interval at the end lies wholly below the one at the start",
    "none shown": "no difference that 95 % intervals can show",
}


class ProgressConsole(Protocol):
    """Shows the progress of one run. Every call returns at once."""

    def step(self, step: int, metrics: Metrics) -> None:
        """Show a finished policy update."""

    def validation(self, version: int, metrics: Metrics) -> None:
        """Show a finished validation."""

    def note(self, text: str) -> None:
        """Show one line that must not scroll away unseen: a restart, a fallback."""

    def close(self) -> None:
        """Leave the terminal as it was; a second call does nothing."""


def open_console(total_steps: int, start_step: int = 0, stream: TextIO | None = None) -> ProgressConsole:
    """A live display when `stream` (standard output) is a terminal that can show one, else plain lines."""
    out = sys.stdout if stream is None else stream
    if out.isatty() and os.environ.get("TERM") != "dumb":
        return LiveConsole(total_steps, start_step, out)
    return PlainConsole(total_steps, start_step, out)


@dataclass(slots=True)
class RunProgress:
    """The latest numbers of a run, as labelled text."""

    total_steps: int
    step: int
    metrics: dict[str, float | None] = field(default_factory=dict)
    validation: str = "-"
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=ETA_WINDOW))

    def add_step(self, step: int, metrics: Metrics) -> None:
        """Take over the numbers of a policy update."""
        self.step = step
        self.metrics = dict(metrics)
        if (seconds := metrics.get("time/step_s")) is not None:
            self.durations.append(seconds)

    def add_validation(self, version: int, metrics: Metrics) -> None:
        """Take over the numbers of a validation."""
        self.validation = f"{_accuracy(metrics, 'val/')} of version {version}"

    def fields(self) -> list[tuple[str, str]]:
        """Label and text of everything that an update measured."""
        numbers = [(label, self._text(key, form)) for label, key, form in SHOWN if key in self.metrics]
        return [("validation", self.validation), *numbers, ("ETA", self.eta())]

    def eta(self) -> str:
        """Hours, minutes and seconds that the remaining updates will take at the recent pace."""
        if not self.durations:
            return "-"
        left = max(self.total_steps - self.step, 0) * sum(self.durations) / len(self.durations)
        return _clock(left)

    def _text(self, key: str, form: str) -> str:
        return _number(self.metrics.get(key), form)


class PlainConsole:
    """One line per policy update, for logs and pipes."""

    def __init__(self, total_steps: int, start_step: int, stream: TextIO) -> None:
        self._progress = RunProgress(total_steps, start_step)
        self._stream = stream

    def step(self, step: int, metrics: Metrics) -> None:
        """Print the update."""
        self._progress.add_step(step, metrics)
        shown = " | ".join(f"{label} {text}" for label, text in self._progress.fields())
        _say(self._stream, f"step {step}/{self._progress.total_steps} | {shown}")

    def validation(self, version: int, metrics: Metrics) -> None:
        """Print the validation."""
        self._progress.add_validation(version, metrics)
        _say(self._stream, f"validation {self._progress.validation}")

    def note(self, text: str) -> None:
        """Print the text."""
        _say(self._stream, text)

    def close(self) -> None:
        """Nothing to undo."""


class LiveConsole:
    """A progress bar with the latest numbers under it; notes and stray output scroll above it."""

    def __init__(self, total_steps: int, start_step: int, stream: TextIO) -> None:
        from rich.console import Console  # takes a tenth of a second, and only a terminal needs it
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
        """Move the bar."""
        self._progress.add_step(step, metrics)
        self._bar.update(self._task, completed=step)

    def validation(self, version: int, metrics: Metrics) -> None:
        """Show the accuracy from now on."""
        self._progress.add_validation(version, metrics)

    def note(self, text: str) -> None:
        """Print the text above the bar."""
        self._console.print(text, markup=False)

    def close(self) -> None:
        """Draw the last state and give the terminal back."""
        self._live.stop()

    def _render(self) -> Group:
        from rich.console import Group
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for label, text in self._progress.fields():
            table.add_row(label, text)
        return Group(self._bar.get_renderable(), table)


def print_summary(summary: Mapping[str, Any], run_folder: Path, stream: TextIO | None = None) -> None:
    """Print the one-screen end of a run from `Tracker.summary()`."""
    out = sys.stdout if stream is None else stream
    _say(out, "\n".join(summary_lines(summary, run_folder)))


def summary_lines(summary: Mapping[str, Any], run_folder: Path) -> list[str]:
    """The lines of `print_summary`."""
    restarts = summary["restarts"]
    rows = [
        ("status", f"{summary['status']} at step {summary['steps']} of {summary['total_steps']}"),
        ("accuracy at start", _validation(summary["first_validation"])),
        ("accuracy at end", _validation(summary["last_validation"])),
        ("best accuracy", _validation(summary["best_validation"])),
        ("change", CHANGES.get(summary["change"], "unknown: it takes two validations to compare")),
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
    """What the run was expected to take beside what it took."""
    made = (summary.get("estimate") or {}).get("initial")
    if made is None:
        return []
    took, price = summary["outcome"], ""
    if made["usd"] is not None and took["usd"] is not None:
        price = f", ${made['usd']:.2f} and ${took['usd']:.2f}"
    seconds = f"{made['step_s']:.3g} s estimated, {_number(took['step_s'], '.3g')} s measured"
    return [("an update", f"{seconds} ({made['hours']:.2g} h and {took['hours']:.2g} h in all{price})")]


def _validation(record: Metrics | None) -> str:
    return "no validation" if record is None else f"{_accuracy(record, '')} of version {record['version']}"


def _accuracy(metrics: Metrics, prefix: str) -> str:
    value, low, high = (metrics.get(f"{prefix}accuracy{end}") for end in ("", "_ci_low", "_ci_high"))
    return f"{_number(value, '.1%')} [95 %: {_number(low, '.1%')} to {_number(high, '.1%')}]"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _say(stream: TextIO, text: str) -> None:
    """Print at once; what the stream's encoding lacks (a path may hold it) is escaped instead of raising."""
    encoding = stream.encoding or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
