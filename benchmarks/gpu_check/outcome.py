"""What a step reports: figures while it runs, and pass, fail or skipped at its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Figure = float | int | str | bool
Status = Literal["pass", "fail", "skipped"]
Record = Callable[[str, Figure], None]  # name and value of one figure


class StepFailedError(Exception):
    """The step found something wrong; the text says what."""


class StepSkippedError(Exception):
    """The step has no meaning on this machine; the text says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one step, with its figures in the order in which they were recorded."""

    number: int
    title: str
    status: Status
    reason: str
    seconds: float
    figures: dict[str, Figure]


class FigureFile:
    """Figures as JSON lines, so that those of a step that crashes are kept."""

    def __init__(self, path: Path) -> None:
        """The file is created by the first figure."""
        self._path = path

    def append(self, name: str, value: Figure) -> None:
        """Add one figure."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, value]) + "\n")

    def read(self) -> dict[str, Figure]:
        """Return all figures; the last line may be cut off by a crash and is then left out."""
        figures: dict[str, Figure] = {}
        if not self._path.exists():
            return figures
        for line in self._path.read_text(encoding="utf-8").split("\n")[:-1]:
            name, value = json.loads(line)
            figures[name] = value
        return figures


def require(condition: bool, text: str) -> None:
    """Raise StepFailedError with `text` unless `condition` holds."""
    if not condition:
        raise StepFailedError(text)


def formatted(value: Figure) -> str:
    """Format a figure with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
