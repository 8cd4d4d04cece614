"""The /dev/shm folder of a run: locked by its owner, deleted at the end, swept by a later run if its owner died.

Layout: `<shm>/grpo_gsm8k.<uid>/<run>.<digest>/i<incarnation>/v<version>/`. The digest is that of the run's full path,
because runs in different artifacts folders may have the same name. The owner holds an flock on its folder, which the
kernel releases when the owner dies. Unlike process ids, this works across containers that share /dev/shm.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import xxhash

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import make_private_folder
from grpo_gsm8k.files.locks import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grpo_gsm8k.transport.protocol import WeightsRef


class WeightsStore:
    """The folder in which a run's weights are published; use it in a `with` statement."""

    def __init__(self, shm: Path, run: Path) -> None:
        """Create nothing yet. `run` is the run's folder."""
        self._base = shm / f"grpo_gsm8k.{os.getuid()}"
        self.root = self._base / f"{run.name}.{xxhash.xxh3_64_hexdigest(os.fsencode(run.resolve()))[:8]}"
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Remove the folders of dead runs, then create and lock a new one. Raises UserError if the run is active."""
        if not self._base.parent.is_dir():
            raise UserError(f"shm: {self._base.parent} does not exist; set shm=FOLDER on a tmpfs")
        with self._base_locked():
            self._sweep()
            if self.root.exists():
                raise UserError(f"{self.root} is in use by another process: this run is already active")
            make_private_folder(self.root)
            self._lock = try_lock(self.root)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Delete everything that this run has published."""
        with self._base_locked():
            shutil.rmtree(self.root, ignore_errors=True)
            if self._lock is not None:
                os.close(self._lock)
            if not any(self._base.iterdir()):
                self._base.rmdir()

    def incarnation_folder(self, incarnation: int, known: Sequence[WeightsRef] = ()) -> Path:
        """Create and return the folder in which learner number `incarnation` publishes.

        The learners before it are dead. Of what they published, only the `known` versions stay, which actors may still
        load; a learner that is killed while it publishes leaves a version that nobody has heard of.
        """
        kept = {Path(ref.path) for ref in known}
        for path in self.root.glob("i*/*"):
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)
        folder = self.root / f"i{incarnation}"
        make_private_folder(folder)
        return folder

    @contextlib.contextmanager
    def _base_locked(self) -> Iterator[None]:
        """Hold the lock on the folder of all runs; retries if the last run removes that folder while we wait."""
        held = False
        while not held:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._base, 0o700)
            try:
                descriptor = os.open(self._base, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            except FileNotFoundError:
                continue
            except OSError as error:  # a link or a file
                raise UserError(f"{self._base} is not a folder: remove it, or set shm=FOLDER") from error
            try:
                self._check_private(descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                held = os.fstat(descriptor).st_nlink > 0
                if held:
                    yield
            finally:
                os.close(descriptor)

    def _check_private(self, descriptor: int) -> None:
        """Raise UserError for a folder of somebody else, or one that others may write to: weights could be swapped."""
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise UserError(f"{self._base} belongs to user {found.st_uid}: remove it, or set shm=FOLDER")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise UserError(
                f"{self._base} has mode {stat.S_IMODE(found.st_mode):04o}, open to other users: chmod 700 it after "
                "looking inside, or set shm=FOLDER"
            )

    def _sweep(self) -> None:
        """Delete the folders that no living process holds locked."""
        for folder in self._base.iterdir():
            if folder.is_symlink() or not folder.is_dir():  # not ours; opening a fifo would wait for ever
                continue
            lock = try_lock(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
