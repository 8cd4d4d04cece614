"""Append-only files of JSON objects, one per line, and the reading of files with one object."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.errors import IntegrityError, UserError
from grpo_gsm8k.files.aside import disk_full_named, write_atomically
from grpo_gsm8k.files.parsing import json_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class JsonLines:
    """An append-only file with one JSON object per line; `append` returns after the kernel has the line.

    A crash can only tear the last line. Opening removes it and sets `repaired_bytes` to its length.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises IntegrityError if another line is damaged, OSError for a symlink."""
        self.path = path
        self._fd = self._open()
        self.repaired_bytes = self._repair()

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one object, or nothing after a DiskFullError or OSError. Raises ValueError for NaN or infinity."""
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        size = os.fstat(self._fd).st_size
        written = 0
        try:
            with disk_full_named(self.path, len(line)):
                while written < len(line):
                    written += os.write(self._fd, line[written:])
        finally:
            if written < len(line):
                os.ftruncate(self._fd, size)

    def records(self) -> list[dict[str, Any]]:
        """Return all objects, oldest first."""
        return [json_value(line) for line in self.path.read_bytes().splitlines()]

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Rewrite the file atomically with the wanted objects only. Returns the removed ones."""
        kept: list[dict[str, Any]] = []
        removed: list[dict[str, Any]] = []
        for record in self.records():
            (kept if wanted(record) else removed).append(record)
        if removed:
            text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in kept)
            write_atomically(self.path, text, stat.S_IMODE(os.fstat(self._fd).st_mode))
            os.close(self._fd)
            self._fd = self._open()
        return removed

    def close(self) -> None:
        """Sync to disk and close; a second call does nothing."""
        if self._fd >= 0:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self.path, flags, 0o666)

    def _repair(self) -> int:
        content = self.path.read_bytes()
        good = content.rfind(b"\n") + 1
        _check_lines(self.path, content[:good].splitlines())
        torn = content[good:]
        if torn and _is_object(torn):  # only the newline is missing
            os.write(self._fd, b"\n")
            return 0
        os.ftruncate(self._fd, good)
        return len(torn)


def read_json(path: Path) -> Any:
    """Return the object or list in a file. Raises UserError that names a file that is cut short or damaged."""
    try:
        found = json_value(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict | list):
        raise UserError(f"{path} is cut short or damaged: restore or delete the file")
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects in a file without repairing it, and without a torn last line. Raises IntegrityError."""
    content = path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    _check_lines(path, lines)
    return [json_value(line) for line in lines]


def _check_lines(path: Path, lines: list[bytes]) -> None:
    for number, line in enumerate(lines, start=1):
        if not _is_object(line):
            raise IntegrityError(f"{path}: line {number} is damaged: restore the file or delete that line")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json_value(line), dict)
    except ValueError:
        return False
