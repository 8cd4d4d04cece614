"""One direction of a channel to a worker that has still to connect."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


class LateConnection:
    """Waits in `recv` and `send` until the worker has connected; raises OSError in both once it was aborted."""

    def __init__(self) -> None:
        """Create an end that waits for its connection."""
        self._connection: Future[Connection] = Future()
        self._lock = threading.Lock()

    def connect(self, connection: Connection) -> bool:
        """Use this connection from now on; returns False if it came too late or a second time."""
        with self._lock:
            if self._connection.done():
                return False
            self._connection.set_result(connection)
            return True

    def abort(self) -> None:
        """End both directions at once, also for a thread that waits in `recv` and a peer that does not answer."""
        with self._lock:
            if not self._connection.done():
                self._connection.set_exception(ConnectionAbortedError("the worker has not connected"))
                return
            if self._connection.exception() is not None or self._connection.result().closed:
                return
            shut_down(self._connection.result())

    def recv(self) -> Any:
        """Wait for the next object. Raises EOFError or OSError when the peer is gone."""
        return self._connection.result().recv()

    def send(self, obj: Any) -> None:
        """Send an object. Raises OSError when the peer is gone."""
        self._connection.result().send(obj)

    def close(self) -> None:
        """Tell the peer that nothing follows, and free the descriptor; called by the thread that reads or writes."""
        self.abort()
        with self._lock:
            if self._connection.exception() is None:
                self._connection.result().close()


def shut_down(connection: Connection) -> None:
    """Shut a TCP connection down. Closing its descriptor would not wake a thread that reads from it."""
    with socket.socket(fileno=socket.dup(connection.fileno())) as same:
        try:
            same.shutdown(socket.SHUT_RDWR)
        except OSError:  # the peer was faster
            return
