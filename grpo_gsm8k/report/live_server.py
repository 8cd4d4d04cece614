"""`report.live=true`: serves a page on 127.0.0.1 while its runs go on."""

from __future__ import annotations

import html
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, unquote, urlsplit

from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.report.live_page import LivePage

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
STATE = "/live"  # the name of the newest build
CHECK_S = 0.5
WATCHED_S = 30.0  # a page that no browser has asked about for that long is not built again


class LiveServer(ThreadingHTTPServer):
    """A server of one page."""

    daemon_threads = True
    asked_at = float("-inf")

    def __init__(self, page: LivePage, port: int) -> None:
        """Listen. Raises UserError if the port is taken or not allowed."""
        self.page = page
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UserError(f"report.port={port} on {HOST}: {error.strerror}: choose another, or 0 for any") from None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report a failed request, unless a browser has closed its connection."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """The URL of the page."""
        return f"http://{HOST}:{self.server_port}/"


def serve_page(page: LivePage, port: int) -> NoReturn:
    """Serve the page until Ctrl-C, which raises KeyboardInterrupt. Raises UserError."""
    with LiveServer(page, port) as server, answering(server):
        print(f"{server.address} shows the report and follows the run; Ctrl-C ends it", flush=True)
        _follow(server)


@contextmanager
def answering(server: LiveServer) -> Iterator[None]:
    """Answer requests in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="live report")
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def _follow(server: LiveServer) -> NoReturn:
    """Build the page again whenever files have changed and somebody looks at it."""
    problem = ""
    while True:
        time.sleep(CHECK_S)
        if time.monotonic() - server.asked_at > WATCHED_S:
            continue
        try:
            server.page.refresh()
        except (OSError, ValueError) as error:  # a file changed while it was read: the page is built again later
            if (found := f"{type(error).__name__}: {' '.join(str(error).split())}") != problem:
                print(f"the page stays as it is: {found}", flush=True)
            problem = found


class _Handler(BaseHTTPRequestHandler):
    """Answers requests for the page, its state and the run files that it links to; refuses all others."""

    server: LiveServer
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """Answer with a body."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self._answer(with_body=False)

    def log_message(self, *_: Any) -> None:
        """Keep requests out of the terminal."""

    def _answer(self, with_body: bool) -> None:
        if self.headers.get("Host", "").rpartition(":")[0] not in NAMES:  # another site's name for this address
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"unknown host", with_body)
            return
        self.server.asked_at = time.monotonic()
        page, path = self.server.page, unquote(urlsplit(self.path).path)
        current = page.current
        if path == "/" and page.address != "/":
            self._send(HTTPStatus.FOUND, "text/plain", b"", with_body, Location=page.address)
        elif path == page.address:
            self._send(HTTPStatus.OK, "text/html", current.content, with_body)
        elif path == STATE:
            self._send(HTTPStatus.OK, "application/json", json.dumps({"build": current.name}).encode(), with_body)
        elif (found := current.file(path)) is not None:
            self._send_file(found, with_body)
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not part of this report", with_body)

    def _send_file(self, path: Path, with_body: bool) -> None:
        if path.is_dir():
            self._send(HTTPStatus.OK, "text/html", listing(path).encode(), with_body)
            return
        try:
            content = path.read_bytes()
        except OSError:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not there", with_body)
            return
        kind = "text/plain" if _is_text(content) else "application/octet-stream"
        self._send(HTTPStatus.OK, kind, content, with_body)

    def _send(self, status: HTTPStatus, kind: str, content: bytes, with_body: bool, **more: str) -> None:
        text = "; charset=utf-8" if kind.startswith(("text/", "application/json")) else ""
        headers = {"Content-Type": kind + text, "Content-Length": str(len(content)), "Cache-Control": "no-store"}
        headers |= {"X-Content-Type-Options": "nosniff", **more}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)


def listing(folder: Path) -> str:
    """Return a page with links to the files of a folder, newest last."""
    names = sorted((path.name for path in folder.iterdir() if path.is_file()), key=lambda name: (len(name), name))
    links = "".join(f'<li><a href="{quote(name)}">{html.escape(name)}</a></li>' for name in names)
    title = html.escape(f"{folder.parent.name}/{folder.name}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><h1>{title}</h1><ul>{links}</ul>'
    )


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in content
