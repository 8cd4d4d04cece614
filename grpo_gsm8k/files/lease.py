"""A lease on a folder that several machines share: its owner changes a file every few seconds.

flock holds between processes of one kernel. On network and FUSE file systems a folder's lock is often local to each
machine, so two pods with one volume would both get it. A lease needs no clocks that agree: whoever comes second watches
whether the file still changes. Two machines that start within the same instant, or an owner that is suspended for
longer than WATCH_SECONDS, are not told apart.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.files.parsing import json_value

NAME = ".owner.json"
BEAT_SECONDS = 4.0
WATCH_SECONDS = 15.0  # more than three beats: one may be late
POLL_SECONDS = 0.5
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def machine_id() -> str:
    """Return what all containers on one kernel have in common, for which flock is enough."""
    return BOOT_ID.read_text().strip()


@contextmanager
def leased(folder: Path, machine: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the lease on a folder whose flock this process holds. Raises UserError if another machine's owner is alive.

    That takes WATCH_SECONDS, of which `tell` gets a line, where an owner on another machine has left its file.
    """
    _refuse_living_owner(folder, machine, tell)
    ended = threading.Event()
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "machine": machine}

    def beat() -> None:
        number = 0
        while not ended.wait(BEAT_SECONDS):
            number += 1
            try:
                _write(folder, owner | {"beat": number})
            except OSError:  # a full disk, say: the run's own records report it
                continue

    _write(folder, owner | {"beat": 0})
    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        (folder / NAME).unlink(missing_ok=True)


def _refuse_living_owner(folder: Path, machine: str, tell: Callable[[str], None]) -> None:
    found = _read(folder)
    if found is None or found.get("machine") == machine:
        return
    host = f"host {found.get('host')} (process {found.get('pid')})"
    tell(f"{folder} was last written by {host}: watching for {WATCH_SECONDS:g} s whether it still is")
    until = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        if _read(folder) not in (found, None):
            raise UserError(f"{folder} is in use by {host}: wait for it, or stop it there")


def _write(folder: Path, owner: dict[str, Any]) -> None:
    write_atomically(folder / NAME, json.dumps(owner) + "\n")


def _read(folder: Path) -> dict[str, Any] | None:
    """Return the owner; None if there is none. A damaged file counts as an unknown one."""
    path = folder / NAME
    if path.is_symlink():
        raise UserError(f"{path} is a link: remove it")
    try:
        value = json_value(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        value = None
    return value if isinstance(value, dict) else {}
