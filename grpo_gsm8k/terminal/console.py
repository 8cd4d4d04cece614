"""Displays of a run's progress: live on a capable terminal, plain lines everywhere else."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from grpo_gsm8k.terminal.plain_console import PlainConsole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from grpo_gsm8k.terminal.run_state import Metrics

NOT_CAPABLE = ("", "dumb", "unknown")  # values of TERM


class ProgressConsole(Protocol):
    """Display of one run's progress. No call waits for anything but a local file."""

    def begin(self, phase: str) -> None:
        """Show that a phase of the start is in progress."""

    def end(self, phase: str, seconds: float) -> None:
        """Show that a phase took this long."""

    def history(self, records: Sequence[Mapping[str, Any]], elapsed_s: float) -> None:
        """Start from the records of earlier updates, `elapsed_s` seconds into the run."""

    def update(self, update: int, metrics: Metrics, completions: Path) -> None:
        """Show a finished policy update; `completions` is its Parquet file, which need not exist."""

    def total(self, updates: int) -> None:
        """Set the number of updates of the run."""

    def validation(self, version: int, metrics: Metrics, completions: Path) -> None:
        """Show a finished validation; `completions` as for `update`."""

    def validating(self, version: int) -> None:
        """Show that the validation of `version` is in progress."""

    def note(self, text: str) -> None:
        """Show one line permanently, such as a restart or a fallback."""

    def close(self) -> None:
        """Restore the terminal; a second call does nothing."""


def open_console(
    total: int, samples: int = 0, usd_per_hour: float | None = None, stream: TextIO | None = None
) -> ProgressConsole:
    """Return a live display if `stream` (default: standard output) is a capable terminal, else plain lines.

    `samples` completions of the newest update are shown; `usd_per_hour` is the price of the machine, if known.
    """
    out = sys.stdout if stream is None else stream
    if is_capable(out):
        from grpo_gsm8k.terminal.live_console import LiveConsole  # lazy: rich takes 0.2 s, and only terminals need it

        return LiveConsole(total, samples, usd_per_hour, out)
    return PlainConsole(total, samples, usd_per_hour, out)


def is_capable(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in NOT_CAPABLE
