"""Progress of a collection: a bar on a terminal, else one plain line every few seconds."""

from __future__ import annotations

import os
import sys
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from decimal import Decimal
    from types import TracebackType

PLAIN_LINE_S = 5.0  # seconds between two lines


class CollectionProgress:
    """Counter of finished samples. Use it in a `with` block; `advance` does not block."""

    def __init__(self, total: int, done: int, cost_usd: Decimal, stream: TextIO | None = None) -> None:
        self._total = total
        self._before = done
        self._done = done
        self._failed = 0
        self._cost_usd = cost_usd
        self._stream = sys.stdout if stream is None else stream
        self._start = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._display, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def advance(self, failed: bool, cost_usd: Decimal) -> None:
        """Count one sample; `cost_usd` is the total so far, including earlier runs."""
        self._done += not failed
        self._failed += failed
        self._cost_usd = cost_usd

    def line(self) -> str:
        """Format samples done, failures, cost and the estimated time left."""
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._done}/{self._total} samples{failed} | ${self._cost_usd:.4f} | ETA {self._eta()}"

    def _eta(self) -> str:
        new = self._done - self._before
        if not new:
            return "-"
        seconds = (time.monotonic() - self._start) / new * (self._total - self._done)
        return str(timedelta(seconds=round(seconds)))

    def _display(self) -> None:
        if self._stream.isatty() and os.environ.get("TERM") != "dumb":
            self._show_bar()
            return
        while not self._ended.wait(PLAIN_LINE_S):
            print(self.line(), file=self._stream, flush=True)

    def _show_bar(self) -> None:
        from rich.console import Console  # lazy: the import takes 0.1 s, and only terminals need it
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        console = Console(file=self._stream, highlight=False)
        with Bar(BarColumn(), TextColumn("{task.description}"), console=console, refresh_per_second=4) as bar:
            task = bar.add_task(self.line(), total=self._total, completed=self._done)
            while not self._ended.wait(0.5):
                bar.update(task, completed=self._done, description=self.line())
            bar.update(task, completed=self._done, description=self.line())
