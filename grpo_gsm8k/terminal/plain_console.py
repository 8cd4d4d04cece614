"""Plain lines of a run, for logs and pipes: one short line per update, no escape sequences."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

from grpo_gsm8k.terminal import run_fields
from grpo_gsm8k.terminal.durations import dollars, duration
from grpo_gsm8k.terminal.run_state import RunState
from grpo_gsm8k.terminal.safe_text import encodable, one_line, shortened
from grpo_gsm8k.terminal.samples import read_samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from grpo_gsm8k.terminal.run_state import Metrics
    from grpo_gsm8k.terminal.samples import ShownSample

SAMPLE_SIZE = 300  # characters of a completion
LATE_SECONDS = 5.0  # a phase that takes longer also has a line at its begin


class PlainConsole:
    """One line per event; see `ProgressConsole`."""

    def __init__(self, total: int, samples: int, usd_per_hour: float | None, stream: TextIO) -> None:
        self._state = RunState(total, time.monotonic(), usd_per_hour)
        self._samples = samples
        self._stream = stream
        self._timers: dict[str, threading.Timer] = {}
        self._completions: Path | None = None  # of the newest update

    def begin(self, phase: str) -> None:
        """Print that the phase is in progress once it has taken LATE_SECONDS."""
        timer = threading.Timer(LATE_SECONDS, self.note, [f"{phase} ..."])
        timer.daemon = True
        self._timers[phase] = timer
        timer.start()

    def end(self, phase: str, seconds: float) -> None:
        """Print how long the phase took."""
        if phase in self._timers:
            self._timers.pop(phase).cancel()
        self.note(f"{phase} ... {duration(seconds)}")

    def history(self, records: Sequence[Mapping[str, Any]], elapsed_s: float) -> None:
        """Continue from these records."""
        self._state = self._state.with_history(records, time.monotonic() - elapsed_s)

    def update(self, update: int, metrics: Metrics, completions: Path) -> None:
        """Print the update."""
        self._state = self._state.with_update(update, metrics)
        self._completions = completions
        self.note(update_line(self._state, time.monotonic()))

    def total(self, updates: int) -> None:
        """Set the number that the lines show."""
        self._state = self._state.with_total(updates)

    def validation(self, version: int, metrics: Metrics, completions: Path) -> None:
        """Print the validation, and completions of the newest update; before the first one, of the validation."""
        self._state = self._state.with_validation(version, metrics)
        self.note(validation_line(self._state, version))
        for sample in self._read(version, completions):
            self.note(sample_line(sample))

    def validating(self, version: int) -> None:
        """Do nothing: its result will be a line."""

    def note(self, text: str) -> None:
        """Print the text."""
        print_line(self._stream, text)

    def close(self) -> None:
        """Forget the phases that did not end."""
        for timer in self._timers.values():
            timer.cancel()

    def _read(self, version: int, completions: Path) -> tuple[ShownSample, ...]:
        of_update = (
            ()
            if self._completions is None
            else read_samples(self._completions, "update", self._state.update, self._samples)
        )
        return of_update or read_samples(completions, "validation", version, self._samples)


def update_line(state: RunState, now: float) -> str:
    """Return the line of the newest update."""
    metrics = state.metrics
    speed = metrics.get("rollout/tokens_per_s", metrics.get("train/tokens_per_s"))
    parts = [f"update {state.update}/{state.total}"]
    if state.curve:
        parts.append(f"{state.curve_name} {state.curve[-1]:.3f}")
    parts.append(f"loss {run_fields.number(metrics.get('train/loss'), '.3g')}")
    parts.append(f"{run_fields.number(speed, '.0f')} tokens/s")
    if state.update < state.total and state.eta is not None:
        parts.append(f"ETA {duration(state.eta)}")
    usd = state.usd(now)
    return " | ".join([*parts, *([] if usd is None else [dollars(usd)])])


def validation_line(state: RunState, version: int) -> str:
    """Return the line of the validation of `version`, compared with the first one."""
    found = dict(state.validations)
    first = state.validations[0]
    before = "" if first[0] == version else f" (update {first[0]}: {run_fields.accuracy(first[1])})"
    return f"validation at update {version}: {run_fields.accuracy(found[version])}{before}"


def sample_line(sample: ShownSample) -> str:
    """Return a completion with its reward on one line."""
    text = shortened(one_line(sample.text), SAMPLE_SIZE)
    gold = shortened(one_line(sample.gold), 40)
    return f"sample at {sample.of} {sample.version}: reward {sample.reward:.3g}, gold {gold}: {text}"


def print_line(stream: TextIO, text: str) -> None:
    """Print and flush; characters that the stream cannot encode (in a path, for example) are escaped."""
    stream.write(f"{encodable(text, stream.encoding)}\n")  # in one piece: a timer may print at the same time
    stream.flush()
