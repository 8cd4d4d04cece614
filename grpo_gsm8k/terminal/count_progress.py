"""Progress of work that is counted, such as questions or samples: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Self, TextIO

from grpo_gsm8k.terminal.console import is_capable
from grpo_gsm8k.terminal.durations import duration
from grpo_gsm8k.terminal.plain_console import print_line

if TYPE_CHECKING:
    from types import TracebackType

PLAIN_LINE_S = 10.0  # seconds between two lines


class CountProgress:
    """Counter of finished items. Use it in a `with` block; no call blocks."""

    def __init__(self, name: str, total: int, done: int = 0, stream: TextIO | None = None) -> None:
        """`name` is the plural of what is counted; `done` of the `total` are finished already."""
        self._name = name
        self._total = total
        self._before = self._done = done
        self._remark = ""
        self._stream = sys.stdout if stream is None else stream
        self._start = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._display, daemon=True)

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Show the last state."""
        self._ended.set()
        self._thread.join()

    def advance(self, items: int = 1, remark: str = "") -> None:
        """Count finished items; the remark, such as the cost so far, is shown from now on."""
        self._done += items
        self._remark = remark or self._remark

    def line(self) -> str:
        """Return items done, their rate, the remark and the estimated time left."""
        seconds = time.monotonic() - self._start
        new, left = self._done - self._before, self._total - self._done
        parts = [f"{self._done}/{self._total} {self._name}", *([self._remark] if self._remark else [])]
        if new and seconds > 0:
            parts.append(f"{new / seconds:.3g}/s")
            parts.append(f"ETA {duration(seconds / new * left)}" if left else duration(seconds))
        return " | ".join(parts)

    def _display(self) -> None:
        if is_capable(self._stream):
            self._show_bar()
            return
        while not self._ended.wait(PLAIN_LINE_S):
            print_line(self._stream, self.line())
        print_line(self._stream, self.line())

    def _show_bar(self) -> None:
        from rich.console import Console  # lazy: the import takes 0.2 s, and only terminals need it
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        console = Console(file=self._stream, highlight=False)
        text = TextColumn("{task.description}", markup=False)
        with Bar(BarColumn(bar_width=None), text, console=console, refresh_per_second=4, expand=True) as bar:
            task = bar.add_task(self.line(), total=self._total, completed=self._done)
            while not self._ended.wait(0.5):
                bar.update(task, completed=self._done, description=self.line())
            bar.update(task, completed=self._done, description=self.line())
