"""Atomic writes of files and folders: written aside in the same parent, then renamed into place."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import DiskFullError, UserError
from grpo_gsm8k.faults import hook

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, over the quota, over the limit on a file's size


@contextmanager
def written_aside(
    target: Path, *, durable: bool = False, private: bool = False, sole_writer: bool = False
) -> Iterator[Path]:
    """Yield an empty folder next to `target` that replaces `target` when the block ends without an error.

    After an error, nothing is left behind and `target` is unchanged. `durable`: sync to disk before the rename.
    `private`: modes 0700 and 0600 regardless of the umask. `sole_writer`: no other process writes `target`, so remove
    the leftovers of a killed writer first. Raises UserError if `target` is a symbolic link or a file.
    """
    refuse_link(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if sole_writer:
        for leftover in target.parent.glob(f".{target.name}.*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
    aside = _sibling(target, "tmp")
    make_private_folder(aside) if private else aside.mkdir()
    try:
        with disk_full_named(target):
            yield aside
            if private:
                make_private(aside)
            replace_folder(aside, target, durable)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def file_written_aside(target: Path) -> Iterator[Path]:
    """Yield a path next to `target` to write to; the file replaces `target` when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = _sibling(target, "tmp")
    try:
        with disk_full_named(target):
            yield aside
            rename(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes | str, mode: int | None = None) -> None:
    """Replace `path` by `data` atomically and durably: readers and crashes see the old or the new content.

    `mode` (0o600 for private files) is set regardless of the umask; None leaves the mode to the umask.
    """
    content = data.encode() if isinstance(data, str) else data
    aside = _sibling(path, "tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with disk_full_named(path, len(content)):
            with os.fdopen(os.open(aside, flags, 0o666 if mode is None else mode), "wb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            rename(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    _fsync(path.parent)


@contextmanager
def disk_full_named(target: Path, needed: int | None = None) -> Iterator[None]:
    """Turn any library's error about a full disk into a DiskFullError with the file, the bytes needed and those free.

    Every library has its own type for it (OSError, SafetensorError, ArrowException), but all repeat the system's text.
    """
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        reason = next((os.strerror(full) for full in FULL if full == number or os.strerror(full) in str(error)), None)
        if reason is None or isinstance(error, DiskFullError):
            raise
        size = "" if needed is None else f"{needed} bytes are needed, "
        free = shutil.disk_usage(target.parent).free
        raise DiskFullError(
            f"{target} was not written: {reason}, {size}{free} bytes are free in {target.parent}"
        ) from error


def make_private_folder(path: Path) -> None:
    """Create a folder with mode 0700 regardless of the umask. Raises FileExistsError."""
    path.mkdir(mode=0o700)
    path.chmod(0o700)  # a umask such as 0777 clears the owner's bits too


def make_private(folder: Path) -> None:
    """Set mode 0700 on a folder and all folders in it, and 0600 on all files in it."""
    folder.chmod(0o700)
    for parent, folders, files in os.walk(folder):
        for names, mode in ((folders, 0o700), (files, 0o600)):
            for path in (Path(parent, name) for name in names):
                if not path.is_symlink():  # chmod would follow the link out of the folder
                    path.chmod(mode)


def replace_folder(tmp: Path, final: Path, durable: bool) -> None:
    """Rename `tmp` to `final` in the same parent. `durable`: sync its content to disk first.

    An existing `final` is first renamed to `.<name>.<hex>.old`, so the final name never holds a partial folder. A
    crash between the two renames leaves only the `.old` folder, which the next call removes.
    """
    if durable:
        for parent, _, files in os.walk(tmp):
            for name in files:
                _fsync(Path(parent, name))
            _fsync(Path(parent))
    old = _sibling(final, "old")
    if os.path.lexists(final):
        rename(final, old)
    rename(tmp, final)
    if durable:
        _fsync(final.parent)
    for left in final.parent.glob(f".{final.name}.????????.old"):
        if left.is_symlink():
            left.unlink()
        else:
            shutil.rmtree(left)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder; a file replaces one of that name."""
    hook("rename.before", target.name)
    os.replace(source, target)
    hook("rename.after", target.name)


def refuse_link(target: Path) -> None:
    """Raise UserError if `target` exists and is not a real folder."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UserError(f"{target} is a link or a file where a folder must be written: move it away")


def _sibling(target: Path, ending: str) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.{ending}")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
