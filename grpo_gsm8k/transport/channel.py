"""One end of a two-way message queue between the orchestrator and a worker process.

Each direction is an operating-system pipe with one writer and one reader, and a thread at either end. Unlike
`multiprocessing.Queue` no lock is shared between the processes: a worker that is killed in the middle of a message
leaves neither a held lock nor a reader that waits for ever, its peer sees the end of the file.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection


class Channel:
    """Send never blocks; receive waits at most as long as it is told."""

    def __init__(
        self,
        reader: Connection,
        writer: Connection,
        deliver: Callable[[object], None] | None = None,
        on_closed: Callable[[], None] | None = None,
        start: bool = True,
    ) -> None:
        """Both callbacks run in the reading thread: `deliver` (instead of `receive`) for each message, `on_closed`
        when the peer is gone. Without `start`, nothing moves before `start()`."""
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
        """Queue a message for the peer. A message to a peer that is gone is lost, as the peer is."""
        self._outbox.put(message)

    def receive(self, timeout: float) -> object | None:
        """The next message, or None after `timeout` seconds (0: at once)."""
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
        while True:
            try:
                message = self._reader.recv()
            except (EOFError, OSError):
                break
            self._deliver(message)
        if self._on_closed is not None:
            self._on_closed()


_END = object()
