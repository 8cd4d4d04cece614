"""Calls of Ray from threads, none of which may still be under way when the run disconnects from Ray."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterator

SLICE_SECONDS = 0.5  # of a long wait: the end of a run waits no longer for one


class NodeLostError(OSError):
    """The machine, or our process on it, is gone, or the run is ending."""


class RayCalls:
    """Counts the calls under way. After `ray.shutdown`, Ray's library ends a process whose thread calls it."""

    def __init__(self) -> None:
        """Allow calls."""
        self._changed = threading.Condition()
        self._running = 0
        self._closed = False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Context manager of one short call. Raises NodeLostError after `close`."""
        with self._changed:
            if self._closed:
                raise NodeLostError("the run is ending")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def get(self, reference: Any, seconds: float) -> Any:
        """Return what a reference stands for, as `ray.get`, whose errors it raises; NodeLostError after `close`."""
        until = time.monotonic() + seconds
        while True:
            left = max(0.0, until - time.monotonic())
            with self.running():
                ready, _ = ray.wait([reference], timeout=min(SLICE_SECONDS, left))
                if ready:
                    return ray.get(ready[0])
            if not left:
                raise GetTimeoutError(f"no result within {seconds:g} s")

    def close(self, seconds: float) -> None:
        """Allow no more calls, and wait for those under way."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._running, seconds)
