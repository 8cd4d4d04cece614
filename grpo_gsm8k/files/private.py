"""Privacy of what a command writes: readable by its user alone, except for files that users may share."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHERS = 0o077  # every permission of the group and of others
_CALLERS: ContextVar[int | None] = ContextVar("umask of the caller, None: unchanged", default=None)


@contextmanager
def private_files() -> Iterator[None]:
    """Create folders with mode 0700 and files with mode 0600 in this process and in those it starts.

    The caller's umask still counts where it takes away more.
    """
    before = os.umask(OTHERS)
    os.umask(before | OTHERS)
    token = _CALLERS.set(before)
    try:
        yield
    finally:
        _CALLERS.reset(token)
        os.umask(before)


@contextmanager
def callers_umask() -> Iterator[None]:
    """Create files as the caller's umask says: for the hub's cache, which the users of a machine may share."""
    callers = _CALLERS.get()
    if callers is None:
        yield
        return
    private = os.umask(callers)
    try:
        yield
    finally:
        os.umask(private)
