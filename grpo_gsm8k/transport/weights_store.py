"""Owner of the /dev/shm folder of a run: claimed with a lock, emptied at the end, swept if its owner died.

Layout: `<shm>/grpo_gsm8k.<uid>/<run>.<digest>/i<incarnation>/v<version>/`; the digest is of the run's full path,
because two runs in different artifacts folders may have one name. The owner holds an flock on its folder; the kernel
releases it with the owner's death, also across containers that share /dev/shm, where a process id says nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import xxhash

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import make_private_folder
from grpo_gsm8k.files.locks import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator


class WeightsStore:
    """The folder in which one run's weights are published; use as a context manager."""

    def __init__(self, shm: Path, run: Path) -> None:
        """Claims nothing yet. `run` is the run's folder."""
        self._base = shm / f"grpo_gsm8k.{os.getuid()}"
        self.root = self._base / f"{run.name}.{xxhash.xxh3_64_hexdigest(os.fsencode(run.resolve()))[:8]}"
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Remove what dead runs left behind, then claim a fresh folder. Raises UserError if the run is active."""
        if not self._base.parent.is_dir():
            raise UserError(f"shm: {self._base.parent} does not exist; set shm=FOLDER on a tmpfs")
        with self._one_at_a_time():
            self._sweep()
            if self.root.exists():
                raise UserError(f"{self.root} is in use by another process: this run is active already")
            make_private_folder(self.root)
            self._lock = try_lock(self.root)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Delete everything that this run published."""
        with self._one_at_a_time():
            shutil.rmtree(self.root, ignore_errors=True)
            if self._lock is not None:
                os.close(self._lock)
            if not any(self._base.iterdir()):
                self._base.rmdir()

    def incarnation_folder(self, incarnation: int) -> Path:
        """Where learner number `incarnation` publishes."""
        folder = self.root / f"i{incarnation}"
        make_private_folder(folder)
        return folder

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Hold the lock on the folder of all runs, which the last run to end removes: maybe while we wait for it."""
        held = False
        while not held:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._base, 0o700)
            try:
                descriptor = os.open(self._base, os.O_RDONLY | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                held = os.fstat(descriptor).st_nlink > 0
                if held:
                    yield
            finally:
                os.close(descriptor)

    def _sweep(self) -> None:
        for folder in self._base.iterdir():
            lock = try_lock(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
