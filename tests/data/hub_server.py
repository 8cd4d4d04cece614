"""A hub on 127.0.0.1 that breaks connections: all of them, or those for files, by a reset or by silence."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

COMMIT = "a" * 40
FILES = ("config.json", "model.safetensors", "train.jsonl")


@dataclass
class Hub:
    """`silent`: never answer, instead of a reset. `files_only`: describe the repository, and break files alone."""

    silent: bool
    files_only: bool
    url: str = ""
    broken: int = 0  # connections
    kept: list[socket.socket] = field(default_factory=list)

    def handle(self, client: socket.socket) -> None:
        if self.files_only and b"/resolve/" not in (request := client.recv(65536)):
            answer: Any = {"id": "owner/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            if b"/tree/" in request:
                answer = [{"type": "file", "path": name, "size": 10, "oid": "b" * 40} for name in FILES]
            body = json.dumps(answer).encode()
            head = (
                f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}"
            )
            client.sendall(head.encode() + b"\r\n\r\n" + body)
            client.close()
            return
        self.broken += 1
        if self.silent:
            self.kept.append(client)
            return
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
        client.close()


@contextmanager
def serve(silent: bool, files_only: bool) -> Iterator[Hub]:
    """Serve until the block ends."""
    hub = Hub(silent, files_only)
    server = socket.create_server(("127.0.0.1", 0))
    hub.url = f"http://127.0.0.1:{server.getsockname()[1]}"

    def accept() -> None:
        while True:
            try:
                client = server.accept()[0]
            except OSError:  # the block has ended
                return
            hub.handle(client)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield hub
    finally:
        server.close()
        for client in hub.kept:
            client.close()
