"""Checksums of folders: `manifest.json` lists each file with its size and xxh3_128 digest.

The digest is a fast checksum (several GB/s) that detects accidental damage. It is not a signature: whoever can write
to the folder can also rewrite the manifest.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from grpo_gsm8k.errors import IntegrityError
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.files.parsing import json_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MANIFEST = "manifest.json"
OWN_KEYS = ("files", "manifest_xxh3_128")  # reserved: `extra` may not contain them
ENTRY = {"size", "xxh3_128"}  # keys of a file
CHUNK_BYTES = 8 * 2**20
SHOWN_PROBLEMS = 5


def digest_file(path: Path) -> str:
    """Return the xxh3_128 hex digest of a regular file. Raises OSError for a symlink."""
    digest = xxhash.xxh3_128()
    buffer = bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return digest.hexdigest()


def digest_parts(parts: Iterable[memoryview]) -> str:
    """Return the digest of a file that consists of these bytes, one part after the other."""
    digest = xxhash.xxh3_128()
    for part in parts:
        for start in range(0, len(part), CHUNK_BYTES):
            digest.update(part[start : start + CHUNK_BYTES])
    return digest.hexdigest()


def digest_weights(folder: Path) -> dict[str, str]:
    """Return the digests of a model folder's safetensors files by name; files of the hub's cache may be links."""
    return {path.name: digest_file(path.resolve()) for path in sorted(folder.glob("*.safetensors"))}


def write_manifest(
    folder: Path, extra: Mapping[str, Any], mode: int | None = None, known: Mapping[str, str] | None = None
) -> None:
    """Write `manifest.json`: `extra`, the files, and a digest of the manifest itself.

    `mode` is passed to `write_atomically`. `known` holds digests by file name that the caller computed from what it
    wrote; these files are not read again. Raises IntegrityError if the folder contains a link or a special file.
    """
    known = known or {}
    if taken := [key for key in OWN_KEYS if key in extra]:
        raise ValueError(f"extra may not contain {taken}")
    present = dict(_walk(folder))
    if odd := sorted(name for name, path in present.items() if not _is_regular(path)):
        raise IntegrityError(f"{folder}: {odd[0]} is not a regular file")
    files = {
        name: {"size": path.stat().st_size, "xxh3_128": known.get(name) or digest_file(path)}
        for name, path in sorted(present.items())
    }
    manifest = json.loads(json.dumps({**extra, "files": files}))  # the digest is over what a reader will parse
    text = json.dumps({**manifest, "manifest_xxh3_128": digest_of_json(manifest)}, indent=1, allow_nan=False)
    write_atomically(folder / MANIFEST, text + "\n", mode)


def verify(folder: Path) -> dict[str, Any]:
    """Verify every file of a folder and return its manifest: the keys of `extra`, and `files`.

    Raises IntegrityError if the manifest is missing or damaged, or if a file is missing, has another size or digest,
    is a symlink, or is not listed.
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


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield relative name and path of everything below a folder except folders and its manifest; links included."""
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
    """Return how a file differs from its manifest entry; "" if it does not."""
    if path is None:
        return "missing"
    if not _is_regular(path):
        return "not a regular file"
    size = path.stat().st_size
    if size != entry["size"]:
        return f"{size} bytes instead of {entry['size']}"
    return "" if digest_file(path) == entry["xxh3_128"] else "damaged (another digest)"


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        if not _is_regular(path):
            raise IntegrityError(f"{folder}: {MANIFEST} is not a regular file")
        manifest = json_value(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise IntegrityError(f"{folder} has no {MANIFEST}: it is incomplete, or not from this project") from None
    except ValueError as error:
        raise IntegrityError(f"{folder}: {MANIFEST} is damaged: {error}") from None
    if not isinstance(manifest, dict) or manifest.pop("manifest_xxh3_128", None) != digest_of_json(manifest):
        raise IntegrityError(f"{folder}: {MANIFEST} is damaged (another digest)")
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(e, dict) and e.keys() >= ENTRY for e in files.values()):
        raise IntegrityError(f"{folder}: {MANIFEST} does not list files with sizes and digests")
    return manifest


def digest_of_json(manifest: object) -> str:
    return xxhash.xxh3_128(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
