"""Peak memory of a program with all of its processes, sampled while it runs."""

from __future__ import annotations

import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERVAL_S = 0.5
MIB = 2**20


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """The largest sums over all processes, in MiB, and the largest size of a folder in shared memory.

    `resident_mb` counts a page in every process that maps it, `proportional_mb` once. Published weights are in memory
    although no process maps them for long.
    """

    resident_mb: float
    proportional_mb: float
    shared_files_mb: float


class MemoryWatch:
    """Samples a process and its descendants until it is stopped."""

    def __init__(self, process: subprocess.Popen[str], shared: Path | None = None) -> None:
        """Start sampling; `shared` is a folder whose files are counted."""
        self._root = process.pid
        self._shared = shared
        self._peak = [0.0, 0.0, 0.0]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> PeakMemory:
        """Stop sampling, and return the peak."""
        self._stopped.set()
        self._thread.join()
        return PeakMemory(*self._peak)

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            try:
                root = psutil.Process(self._root)
                processes = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            found = [sizes for process in processes if (sizes := _sizes(process)) is not None]
            files = [] if self._shared is None else [_size(path) for path in self._shared.rglob("*")]
            sums = (sum(rss for rss, _ in found), sum(pss for _, pss in found), sum(files))
            self._peak = [max(a, b / MIB) for a, b in zip(self._peak, sums, strict=True)]


def _sizes(process: psutil.Process) -> tuple[int, int] | None:
    """Return resident and proportional bytes; None for a process that has ended."""
    try:
        info = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    return info.rss, info.pss


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:  # deleted meanwhile
        return 0
