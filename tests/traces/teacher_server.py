"""A chat API on 127.0.0.1 that solves sums, injects faults, and records what it bills."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-test-4f1e2d3c5b6a"
STALL = 1  # send half of the answer, then a space now and then, until the client is gone


@dataclass(frozen=True)
class Asked:
    """One received request."""

    number: int  # from 1
    body: dict[str, Any]
    at: float  # monotonic seconds

    @property
    def question(self) -> str:
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True)
class Fault:
    """A fault instead of an answer: an HTTP status, 0 to bill the request and drop the connection, or STALL."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "no"


@dataclass
class Teacher:
    """Behavior of the server, and its record of all requests."""

    fault: Callable[[Asked], Fault | None] = lambda asked: None
    delay_s: float = 0.0
    finish_reason: Callable[[Asked], str] = lambda asked: "stop"
    answer: Callable[[Asked], str] | None = None
    has_usage: bool = True
    asked: list[Asked] = field(default_factory=list)
    billed: dict[str, tuple[int, int]] = field(default_factory=dict)  # reference in the answer: tokens in, out
    keys: set[str] = field(default_factory=set)
    under_way: int = 0
    most_under_way: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, body: dict[str, Any], key: str) -> Asked:
        with self.lock:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            asked = Asked(len(self.asked) + 1, body, time.monotonic())
            self.asked.append(asked)
            self.keys.add(key)
        return asked

    def end(self) -> None:
        with self.lock:
            self.under_way -= 1

    def completion(self, asked: Asked) -> dict[str, Any]:
        """Return an answer and bill it."""
        reference = f"ref{asked.number}"
        usage = (40 + asked.number % 7, 30 + asked.number % 61)
        with self.lock:
            self.billed[reference] = usage
        text = self.answer(asked) if self.answer else f"The sum is easy.\n#### {solve(asked.question)}"
        message = {"role": "assistant", "content": text, "reasoning_content": f"I add them up ({reference})."}
        counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        return {
            "id": reference,
            "object": "chat.completion",
            "created": 0,
            "model": "sums-1",
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish_reason(asked)}],
            "usage": counts if self.has_usage else None,
        }


def solve(question: str) -> int:
    """Return the value of the sum in a question of reasoning-gym's chain_sum."""
    terms = re.findall(r"[-+]?\s*\d+", question.rpartition("=")[0].rpartition(":")[2])
    return sum(int(term.replace(" ", "")) for term in terms)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    teacher: Teacher

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        asked = self.teacher.begin(body, key)
        try:
            time.sleep(self.teacher.delay_s)
            self._answer(asked)
        except OSError:
            self.close_connection = True  # the client was killed
        finally:
            self.teacher.end()

    def _answer(self, asked: Asked) -> None:
        fault = self.teacher.fault(asked)
        if fault is None:
            self._send(200, self.teacher.completion(asked), {})
        elif fault.status == STALL:
            self._stall(json.dumps(self.teacher.completion(asked)).encode())
        elif fault.status == 0:
            self.teacher.completion(asked)  # answered and billed, but the answer never arrives
            self.close_connection = True
        else:
            self._send(fault.status, {"error": {"message": fault.message}}, fault.headers)

    def _stall(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data) + 10**6))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        while True:  # raises OSError when the client has closed the connection
            self.wfile.write(b" ")
            time.sleep(0.1)

    def _send(self, status: int, value: dict[str, Any], headers: dict[str, str]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors of killed clients."""


@contextmanager
def serve(teacher: Teacher) -> Iterator[Teacher]:
    """Serve until the block ends."""
    handler = type("Handler", (_Handler,), {"teacher": teacher})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    teacher.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield teacher
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
