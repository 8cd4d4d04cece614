"""Files and folders that appear whole or not at all: written aside in the same parent, then renamed."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def written_aside(
    target: Path, *, durable: bool = False, private: bool = False, sole_writer: bool = False
) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target` when the block ends without an error.

    An existing `target` is replaced. After an error nothing is left behind and `target` is unchanged. With `durable`
    the bytes are on the disk before the rename, with `private` folders get mode 0700 and files 0600 whatever the umask
    is, and with `sole_writer` the leftovers of a killed writer of `target` are removed first. Raises UserError when
    `target` is a symbolic link or a file.
    """
    refuse_link(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if sole_writer:
        for leftover in target.parent.glob(f".{target.name}.*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
    aside = _sibling(target, "tmp")
    make_private_folder(aside) if private else aside.mkdir()
    try:
        yield aside
        if private:
            make_private(aside)
        replace_folder(aside, target, durable)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def file_written_aside(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` for a writer that wants a path; that file becomes `target` without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = _sibling(target, "tmp")
    try:
        yield aside
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes | str, mode: int | None = None) -> None:
    """Replace `path` by `data` so that a reader, or a crash at any moment, sees the old or the new whole.

    `mode` (0o600 for what is private) holds whatever the umask is; None leaves the choice to the umask.
    """
    content = data.encode() if isinstance(data, str) else data
    aside = _sibling(path, "tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(aside, flags, 0o666 if mode is None else mode), "wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    _fsync(path.parent)


def make_private_folder(path: Path) -> None:
    """Make one new folder with mode 0700 whatever the umask is. Raises FileExistsError."""
    path.mkdir(mode=0o700)
    path.chmod(0o700)  # a umask such as 0777 takes the owner's bits too


def make_private(folder: Path) -> None:
    """Give a folder, and the folders in it, mode 0700 and every file in it 0600, whatever the umask was."""
    folder.chmod(0o700)
    for parent, folders, files in os.walk(folder):
        for names, mode in ((folders, 0o700), (files, 0o600)):
            for path in (Path(parent, name) for name in names):
                if not path.is_symlink():  # chmod would follow it out of the folder
                    path.chmod(mode)


def replace_folder(tmp: Path, final: Path, durable: bool) -> None:
    """Rename `tmp` into place as `final`, in the same parent. With `durable` its bytes are on the disk before that.

    An existing `final` is moved aside first. A crash between the two renames leaves it aside (`.<name>.<hex>.old`),
    so that nothing half-written ever bears the final name; the next call removes what was left.
    """
    if durable:
        for parent, _, files in os.walk(tmp):
            for name in files:
                _fsync(Path(parent, name))
            _fsync(Path(parent))
    old = _sibling(final, "old")
    if os.path.lexists(final):
        os.rename(final, old)
    os.rename(tmp, final)
    if durable:
        _fsync(final.parent)
    for left in final.parent.glob(f".{final.name}.????????.old"):
        if left.is_symlink():
            left.unlink()
        else:
            shutil.rmtree(left)


def refuse_link(target: Path) -> None:
    """Raise UserError unless `target` is a real folder or does not exist."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UserError(f"{target} is a link or a file, but a folder has to be written there: move it away")


def _sibling(target: Path, ending: str) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.{ending}")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
