"""The live display of a run: measurements that are redrawn in place; notes and finished phases scroll above them."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from grpo_gsm8k.terminal.durations import duration
from grpo_gsm8k.terminal.live_view import live_view
from grpo_gsm8k.terminal.run_state import RunState
from grpo_gsm8k.terminal.safe_text import encodable
from grpo_gsm8k.terminal.samples import read_samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from grpo_gsm8k.terminal.run_state import Metrics

REDRAWS_PER_SECOND = 2


class LiveConsole:
    """See `ProgressConsole`. A thread of rich redraws: the state is immutable and replaced as a whole."""

    def __init__(self, total: int, samples: int, usd_per_hour: float | None, stream: TextIO) -> None:
        self._state = RunState(total, time.monotonic(), usd_per_hour)
        self._samples = samples
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=REDRAWS_PER_SECOND,
            redirect_stderr=sys.stderr.isatty(),  # a warning there would garble the display
        )
        self._live.start()

    def begin(self, phase: str) -> None:
        """Show the phase with its running time."""
        self._state = self._state.with_phase(phase, time.monotonic())

    def end(self, phase: str, seconds: float) -> None:
        """Move the phase to the lines above."""
        self._state = self._state.without_phase(phase)
        self._live.refresh()  # else the phase would be on the screen twice until the next redraw
        self._print(f"{phase} ... {duration(seconds)}")

    def history(self, records: Sequence[Mapping[str, Any]], elapsed_s: float) -> None:
        """Continue from these records."""
        self._state = self._state.with_history(records, time.monotonic() - elapsed_s)

    def update(self, update: int, metrics: Metrics, completions: Path) -> None:
        """Show the update and some of its completions."""
        samples = read_samples(completions, "update", update, self._samples)
        self._state = self._state.with_update(update, metrics, samples)

    def total(self, updates: int) -> None:
        """Set the length of the bar."""
        self._state = self._state.with_total(updates)

    def validating(self, version: int) -> None:
        """Show that the validation is in progress."""
        self._state = self._state.with_phase(_validating(version), time.monotonic())

    def validation(self, version: int, metrics: Metrics, completions: Path) -> None:
        """Show the validation."""
        samples = read_samples(completions, "validation", version, self._samples)
        state = self._state.without_phase(_validating(version))
        self._state = state.with_validation(version, metrics, samples)

    def note(self, text: str) -> None:
        """Print the text above the display."""
        self._print(text)

    def close(self) -> None:
        """Draw the last state, without completions, and restore the terminal."""
        self._state = replace(self._state, samples=(), phases=())
        self._live.stop()

    def _print(self, text: str) -> None:
        self._console.print(Text(encodable(text, self._console.encoding)), soft_wrap=True)

    def _render(self) -> RenderableType:
        width, height = self._console.size
        ascii_only = self._console.options.ascii_only
        return live_view(self._state, width, height, time.monotonic(), ascii_only)


def _validating(version: int) -> str:
    return f"validation at update {version}"
