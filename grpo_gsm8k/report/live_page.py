"""A page that is built again when the files of its runs have changed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

READ = ("*.json", "*.jsonl", "config.yaml", "rollouts/*.parquet", "validation/*.parquet")
PAUSE_S = 2.0  # between two builds
PAUSE_PER_BUILD_S = 5.0  # so that building takes at most a sixth of one core from the run
Fingerprint = frozenset[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class BuiltPage:
    """The bytes of a page, the name of this build, and the run files and folders that it links to, by address."""

    content: bytes
    name: str
    linked: dict[str, Path]

    def file(self, address: str) -> Path | None:
        """Return a file or folder that the page links to, or a file in such a folder; None for anything else."""
        if address in self.linked:
            return self.linked[address]
        folder, _, name = address.rpartition("/")
        if (above := self.linked.get(f"{folder}/")) is None or name in {"", ".", ".."}:
            return None
        path = above / name
        return path if path.is_file() and not path.is_symlink() else None


class LivePage:
    """Holds the newest page of `runs`; its address on the server reflects its place among the run folders."""

    def __init__(self, build: Callable[[str], str], runs: Sequence[Path], root: Path, address: str) -> None:
        """Build the page for the first time.

        `build` gets a name that differs between builds. `root` is the folder that the server's `/` stands for.
        """
        self._build, self._runs, self._root, self.address = build, [run.resolve() for run in runs], root, address
        self.builds = 0
        self._seen: Fingerprint = frozenset()
        self._ready_at = 0.0
        self.current = self._built()

    def refresh(self) -> bool:
        """Build the page again if files have changed and the pause is over; returns whether it was built."""
        if time.monotonic() < self._ready_at or fingerprint(self._runs) == self._seen:
            return False
        self.current = self._built()
        return True

    def _built(self) -> BuiltPage:
        started = time.monotonic()
        seen = fingerprint(self._runs)  # before the build: what is written during it is read by the next one
        name = secrets.token_hex(8)
        try:
            text = self._build(name)
        finally:
            seconds = time.monotonic() - started
            self._ready_at = time.monotonic() + max(PAUSE_S, PAUSE_PER_BUILD_S * seconds)
        self.builds += 1
        self._seen = seen
        return BuiltPage(text.encode(), name, dict(self._linked(text)))

    def _linked(self, page: str) -> Iterator[tuple[str, Path]]:
        """Yield addresses and files that the page links to, if they are in one of its run folders."""
        for link in _Links(page).found:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not parts.path:
                continue
            slash = "/" if parts.path.endswith("/") else ""  # a folder
            address = _normalized(PurePosixPath(self.address).parent / unquote(parts.path)) + slash
            path = (self._root / address.lstrip("/")).resolve()
            if any(run in path.parents for run in self._runs):
                yield address, path


def fingerprint(runs: Sequence[Path]) -> Fingerprint:
    """Return names, times and sizes of the files that a report reads."""
    return frozenset(_stamps(runs))


def _stamps(runs: Sequence[Path]) -> Iterator[tuple[str, int, int]]:
    for path in (path for run in runs for pattern in READ for path in run.glob(pattern)):
        try:
            found = path.stat()
        except OSError:  # gone since the listing, as files written aside are
            continue
        yield str(path), found.st_mtime_ns, found.st_size


def _normalized(address: PurePosixPath) -> str:
    """Return the address without `..`, as browsers send it."""
    parts: list[str] = []
    for part in address.parts[1:]:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/" + "/".join(parts)


class _Links(HTMLParser):
    """The `href` of each link of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the address of a link."""
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]
