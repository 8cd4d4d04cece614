"""Files that appear whole or not at all, and folders whose every byte can be checked.

A folder's `manifest.json` lists each file with its size and xxh3_128 digest: a fast checksum against accidents
(several GB/s), not a signature against an attacker who can write to the folder.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from grpo_gsm8k.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MANIFEST = "manifest.json"
OWN_KEYS = ("files", "manifest_xxh3_128")  # keys of the manifest that `extra` may not use
CHUNK_BYTES = 8 * 2**20
SHOWN_PROBLEMS = 5
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # of some network file systems: there is nobody to ask


class IntegrityError(LabError):
    """A file or folder is not what was written; the text names each file and the reason."""


def try_lock(folder: Path) -> int | None:
    """A descriptor that holds the lock on a folder, or None if somebody else does. The kernel frees a dead owner's."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return descriptor


def digest_file(path: Path) -> str:
    """The xxh3_128 hex digest of a regular file; a symlink is not followed (OSError)."""
    digest = xxhash.xxh3_128()
    buffer = bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return digest.hexdigest()


def write_manifest(folder: Path, extra: Mapping[str, Any], mode: int | None = None) -> None:
    """Write `manifest.json`: the keys of `extra`, `files`, and a digest of the manifest itself.

    `mode` is as in `write_atomically`. Raises IntegrityError when the folder holds anything but files and folders.
    """
    if taken := [key for key in OWN_KEYS if key in extra]:
        raise ValueError(f"extra may not contain {taken}")
    present = dict(_walk(folder))
    if odd := sorted(name for name, path in present.items() if not _is_regular(path)):
        raise IntegrityError(f"{folder}: {odd[0]} is no regular file")
    files = {
        name: {"size": path.stat().st_size, "xxh3_128": digest_file(path)} for name, path in sorted(present.items())
    }
    manifest = json.loads(json.dumps({**extra, "files": files}))  # as a reader will see it
    text = json.dumps({**manifest, "manifest_xxh3_128": _digest_of(manifest)}, indent=1, allow_nan=False)
    write_atomically(folder / MANIFEST, text + "\n", mode)


def verify(folder: Path) -> dict[str, Any]:
    """Check every byte of a folder and return its manifest: the keys of `extra` and `files`.

    Raises IntegrityError for a missing or damaged manifest, and for each file that is missing, has another size or
    digest, is a symlink, or is not listed.
    """
    manifest = _read_manifest(folder)
    listed: dict[str, Any] = manifest["files"]
    present = dict(_walk(folder))
    problems = [f"{name}: not listed in the manifest" for name in sorted(present.keys() - listed.keys())]
    for name, entry in listed.items():
        if reason := _damage(present.get(name), entry):
            problems.append(f"{name}: {reason}")
    if problems:
        more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise IntegrityError(f"{folder}: " + "; ".join(problems[:SHOWN_PROBLEMS]) + more)
    return manifest


def write_atomically(path: Path, data: bytes | str, mode: int | None = None) -> None:
    """Replace `path` by `data` so that a reader, or a crash at any moment, sees the old or the new whole.

    `mode` (0o600 for what is private) holds whatever the umask is; None leaves the choice to the umask.
    """
    content = data.encode() if isinstance(data, str) else data
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
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
    old = final.with_name(f".{final.name}.{secrets.token_hex(4)}.old")
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


class JsonLines:
    """An append-only file of one JSON object per line; each append reaches the kernel before it returns.

    A crash can tear the last line only; opening removes it and says how many bytes in `repaired_bytes`.
    """

    def __init__(self, path: Path) -> None:
        """Open or create. Raises IntegrityError for a damaged line that is not the last, OSError for a symlink."""
        self.path = path
        self._fd = self._open()
        self.repaired_bytes = self._repair()

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one object. Raises ValueError for NaN or infinity; on OSError (no space) the file is as before."""
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        size = os.fstat(self._fd).st_size
        written = 0
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        finally:
            if written < len(line):
                os.ftruncate(self._fd, size)

    def records(self) -> list[dict[str, Any]]:
        """All objects, oldest first."""
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Rewrite the file atomically with the wanted objects only; returns the removed ones."""
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
        """Put the bytes on the disk and close; a second call does nothing."""
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
        for number, line in enumerate(content[:good].splitlines(), start=1):
            if not _is_object(line):
                raise IntegrityError(f"{self.path}: line {number} is damaged: restore the file or delete that line")
        torn = content[good:]
        if torn and _is_object(torn):  # whole but for its end of line
            os.write(self._fd, b"\n")
            return 0
        os.ftruncate(self._fd, good)
        return len(torn)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Everything below a folder but its folders and its manifest, symlinks included and not followed."""
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in [*files, *links]:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if relative != MANIFEST:
                yield relative, path


def _is_regular(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _damage(path: Path | None, entry: Mapping[str, Any]) -> str:
    if path is None:
        return "missing"
    if not _is_regular(path):
        return "no regular file"
    size = path.stat().st_size
    if size != entry["size"]:
        return f"{size} bytes instead of {entry['size']}"
    return "" if digest_file(path) == entry["xxh3_128"] else "damaged (another digest)"


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        if not _is_regular(path):
            raise IntegrityError(f"{folder}: {MANIFEST} is no regular file")
        manifest = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise IntegrityError(f"{folder}: no {MANIFEST}, so it is incomplete or not ours") from None
    except ValueError as error:
        raise IntegrityError(f"{folder}: {MANIFEST} is damaged: {error}") from None
    if not isinstance(manifest, dict) or manifest.pop("manifest_xxh3_128", None) != _digest_of(manifest):
        raise IntegrityError(f"{folder}: {MANIFEST} is damaged (another digest)")
    return manifest


def _digest_of(manifest: object) -> str:
    return xxhash.xxh3_128(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
