"""The address at which workers on other machines connect: two connections each, authenticated by a key of this run.

Objects are pickled, so whoever has the key can execute code here. It is random, stays in memory, and travels only in
Ray's own calls and through pipes: never on a command line, in an environment or in a log.
"""

from __future__ import annotations

import secrets
import socket
import struct
import threading
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpo_gsm8k.cluster.late_connection import LateConnection

KEY_BYTES = 32
HANDSHAKE_SECONDS = 10  # for a peer that connects and then says nothing
KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))  # seconds, seconds, tries


@dataclass(frozen=True, slots=True)
class Hello:
    """First message on each connection: which worker it is, what this side does with it, and the worker's process."""

    worker_id: str
    reads: bool  # whether our side reads from this connection; on the other one it writes
    pid: int


@dataclass(frozen=True, slots=True)
class Expected:
    """The ends that wait for a worker, and what to call with its process id when the first one is connected."""

    reader: LateConnection
    writer: LateConnection
    connected: Callable[[int], None]


class DialIn:
    """Accepts connections on one interface, in a thread of its own, until it is closed."""

    def __init__(self, interface: str) -> None:
        """Listen on a free port. Raises UserError if `interface` is not an address of this machine."""
        self.key = secrets.token_bytes(KEY_BYTES)
        try:
            self._socket = socket.create_server((interface, 0))
        except OSError as error:
            raise UserError(
                f"cluster.interface={interface}: {error.strerror}: give an address of this machine"
            ) from None
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._expected: dict[str, Expected] = {}
        threading.Thread(target=self._accept_all, name="dial-in", daemon=True).start()

    def expect(self, worker_id: str, expected: Expected) -> None:
        """Let the worker with this id connect."""
        self._expected[worker_id] = expected

    def forget(self, worker_id: str) -> None:
        """Refuse this worker from now on."""
        self._expected.pop(worker_id, None)

    def close(self) -> None:
        """Accept nothing more."""
        self._socket.close()

    def _accept_all(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:  # closed
                return
            # In a thread each: a peer that says nothing must not keep the next one waiting.
            threading.Thread(target=self._welcome, args=(peer,), daemon=True).start()

    def _welcome(self, peer: socket.socket) -> None:
        """Check the key, then hand the connection to whom it belongs; without the right key it is closed."""
        _limit(peer, HANDSHAKE_SECONDS)
        connection = Connection(peer.detach())
        try:
            deliver_challenge(connection, self.key)
            answer_challenge(connection, self.key)
            hello = connection.recv()
            expected = self._expected.get(hello.worker_id)
        except (AuthenticationError, EOFError, OSError):
            connection.close()
            return
        with socket.socket(fileno=socket.dup(connection.fileno())) as same:
            _limit(same, 0)
        end = None if expected is None else expected.reader if hello.reads else expected.writer
        if expected is None or end is None or not end.connect(connection):
            connection.close()
        elif hello.reads:
            expected.connected(hello.pid)


def _limit(peer: socket.socket, seconds: int) -> None:
    """Bound each read and write (0: no bound), and have the kernel notice a peer whose machine is gone."""
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        peer.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        peer.setsockopt(socket.IPPROTO_TCP, option, value)
