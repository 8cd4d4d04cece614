"""The address at which workers of other machines connect: real TCP connections on the loopback interface."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client

import pytest

from grpo_gsm8k.cluster.dial_in import DialIn, Expected, Hello
from grpo_gsm8k.cluster.late_connection import LateConnection
from grpo_gsm8k.errors import UserError


@pytest.fixture
def dial_in() -> Iterator[DialIn]:
    opened = DialIn("127.0.0.1")
    yield opened
    opened.close()


def expect(dial_in: DialIn, worker_id: str) -> tuple[LateConnection, LateConnection, threading.Event]:
    reader, writer, known = LateConnection(), LateConnection(), threading.Event()
    dial_in.expect(worker_id, Expected(reader, writer, lambda pid: known.set()))
    return reader, writer, known


def test_a_worker_with_the_key_gets_a_channel_in_both_directions(dial_in: DialIn) -> None:
    reader, writer, known = expect(dial_in, "a")
    silent = socket.create_connection(dial_in.address)  # says nothing: must not keep the worker waiting
    to_run = Client(dial_in.address, authkey=dial_in.key)
    to_run.send(Hello("a", reads=True, pid=os.getpid()))
    from_run = Client(dial_in.address, authkey=dial_in.key)
    from_run.send(Hello("a", reads=False, pid=os.getpid()))
    to_run.send("result")
    assert reader.recv() == "result"
    writer.send("request")
    assert from_run.recv() == "request"
    assert known.wait(60)
    silent.close()
    to_run.close()  # as when the worker dies
    with pytest.raises(EOFError):
        reader.recv()


def test_a_wrong_key_an_unknown_worker_and_a_second_one_of_a_name_are_refused(dial_in: DialIn) -> None:
    with pytest.raises((AuthenticationError, EOFError, ConnectionError)):
        Client(dial_in.address, authkey=b"x" * 32).recv()
    stranger = Client(dial_in.address, authkey=dial_in.key)
    stranger.send(Hello("unknown", reads=True, pid=1))
    with pytest.raises((EOFError, ConnectionError)):
        stranger.recv()
    reader, _, _ = expect(dial_in, "a")
    first = Client(dial_in.address, authkey=dial_in.key)
    first.send(Hello("a", reads=True, pid=1))
    first.send(1)
    assert reader.recv() == 1
    second = Client(dial_in.address, authkey=dial_in.key)
    second.send(Hello("a", reads=True, pid=1))
    with pytest.raises((EOFError, ConnectionError)):
        second.recv()


def test_it_listens_on_one_interface_only(dial_in: DialIn) -> None:
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, dial_in.address[1]))
    with pytest.raises(UserError, match=r"cluster\.interface=192\.0\.2\.77: "):
        DialIn("192.0.2.77")


def test_an_abort_wakes_whoever_waits_for_a_peer_that_does_not_answer(dial_in: DialIn) -> None:
    waiting, _, _ = expect(dial_in, "never")
    connected, _, known = expect(dial_in, "a")
    peer = Client(dial_in.address, authkey=dial_in.key)
    peer.send(Hello("a", reads=True, pid=1))
    assert known.wait(60)
    for end in (waiting, connected):
        threading.Timer(0.2, end.abort).start()
        with pytest.raises((OSError, EOFError)):
            end.recv()
        end.abort()  # again: does nothing
