"""A step of a command that may take long, shown with its seconds."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from grpo_gsm8k.terminal.console import is_capable
from grpo_gsm8k.terminal.durations import duration
from grpo_gsm8k.terminal.plain_console import LATE_SECONDS, print_line
from grpo_gsm8k.terminal.safe_text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOWN_FROM = 1.0  # seconds: shorter stages leave no line


@contextmanager
def stage(name: str, stream: TextIO | None = None) -> Iterator[None]:
    """Show `name ...` with running seconds on a terminal, and afterwards `name ... 12 s`."""
    out = sys.stdout if stream is None else stream
    shown, started = one_line(name), time.monotonic()
    with _ticking(shown, started, out) if is_capable(out) else _late_line(shown, out):
        yield
    seconds = time.monotonic() - started
    if seconds >= SHOWN_FROM:
        print_line(out, f"{shown} ... {duration(seconds)}")


@contextmanager
def _ticking(name: str, started: float, stream: TextIO) -> Iterator[None]:
    from rich.console import Console  # lazy: rich takes 0.2 s, and only terminals need it
    from rich.live import Live
    from rich.text import Text

    def line() -> Text:
        return Text(f"{name} ... {duration(time.monotonic() - started)}", no_wrap=True, overflow="ellipsis")

    console = Console(file=stream, highlight=False)
    with Live(console=console, get_renderable=line, refresh_per_second=2, transient=True):
        yield


@contextmanager
def _late_line(name: str, stream: TextIO) -> Iterator[None]:
    """Print the name once LATE_SECONDS have passed."""
    timer = threading.Timer(LATE_SECONDS, print_line, [stream, f"{name} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
