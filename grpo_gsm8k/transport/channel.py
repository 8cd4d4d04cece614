"""One end of a two-way message queue between the orchestrator and a worker process.

Each direction is an operating-system pipe with one writer and one reader, and a thread at either end. Unlike with
`multiprocessing.Queue`, the processes share no lock: when a worker is killed in the middle of a message, no lock stays
held and no reader waits forever, because its peer sees the end of the pipe.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Reader(Protocol):
    """The receiving end of a pipe."""

    def recv(self) -> Any:
        """Wait for the next object. Raises EOFError or OSError when the peer is gone."""

    def close(self) -> None:
        """Close this end."""


class Writer(Protocol):
    """The sending end of a pipe."""

    def send(self, obj: Any) -> None:
        """Send an object. Raises OSError when the peer is gone."""

    def close(self) -> None:
        """Close this end."""


class Channel:
    """A message queue whose `send` never blocks and whose `receive` takes a timeout."""

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        deliver: Callable[[object], None] | None = None,
        on_closed: Callable[[], None] | None = None,
        start: bool = True,
    ) -> None:
        """The reading thread calls `deliver` (instead of `receive`) for each message, and `on_closed` when the peer is
        gone. With `start=False`, nothing is moved before `start()`."""
        self._reader = reader
        self._writer = writer
        self._on_closed = on_closed
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._deliver = deliver or self._inbox.put
        self._outbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._send_all, name="channel-send", daemon=True)
        self._receiver = threading.Thread(target=self._receive_all, name="channel-receive", daemon=True)
        if start:
            self.start()

    def start(self) -> None:
        """Begin to move messages."""
        self._sender.start()
        self._receiver.start()

    def send(self, message: object) -> None:
        """Queue a message for the peer; it is lost if the peer is gone."""
        self._outbox.put(message)

    def receive(self, timeout: float) -> object | None:
        """Return the next message, or None if there is none within `timeout` seconds (0: do not wait)."""
        try:
            return self._inbox.get(block=timeout > 0, timeout=timeout or None)
        except queue.Empty:
            return None

    def close(self, timeout: float) -> None:
        """Send what is queued, for at most `timeout` seconds, then stop."""
        self._outbox.put(_END)
        self._sender.join(timeout)

    def _send_all(self) -> None:
        while (message := self._outbox.get()) is not _END:
            try:
                self._writer.send(message)
            except OSError:  # the peer is gone; the reading thread reports it
                break
        self._writer.close()

    def _receive_all(self) -> None:
        try:
            while True:
                try:
                    message = self._reader.recv()
                except (EOFError, OSError):
                    break
                self._deliver(message)
        finally:  # also after a message that cannot be read, whose error goes to the log
            self._outbox.put(_END)  # nobody reads it any more; without this its thread and both ends would stay
            self._reader.close()
            if self._on_closed is not None:
                self._on_closed()


_END = object()
