"""The learner's end of its channel: who gets a result, and when."""

from __future__ import annotations

import queue
from functools import partial
from typing import Any

import numpy as np
import pytest

from grpo_gsm8k.errors import LabError
from grpo_gsm8k.learner.client import Client
from grpo_gsm8k.transport.protocol import (
    Bundle,
    Cancel,
    Failed,
    GenerateGroup,
    GroupResult,
    SamplingSpec,
    Stop,
    WeightsLive,
    WeightsRef,
)


class Peer:
    """A channel whose other end is the test."""

    def __init__(self, *messages: object) -> None:
        self.inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.sent: list[object] = []
        for message in messages:
            self.inbox.put(message)

    def send(self, message: object) -> None:
        self.sent.append(message)

    def receive(self, timeout: float) -> object | None:
        try:
            return self.inbox.get(block=timeout > 0, timeout=timeout or None)
        except queue.Empty:
            return None


def client_of(peer: Any) -> Client:
    return Client(peer, incarnation=0)


def request(name: str) -> GenerateGroup:
    sampling = SamplingSpec(1.0, 1.0, 4, 0, (1,))
    return GenerateGroup(name, np.array([5], dtype=np.int32), 1, sampling, 0, pinned=False)


def test_each_result_goes_to_whoever_asked_for_it_in_order_of_arrival() -> None:
    """Also while another one is waited for, so that work on it can begin."""
    peer = Peer(GroupResult("b", ()), GroupResult("a", ()))
    client = client_of(peer)
    arrived: list[tuple[str, str]] = []
    for name in ("a", "b"):
        client.request(request(name), lambda result, name=name: arrived.append((name, result.request_id)))
    client.flush()
    assert [m.request_id for m in next(b for b in peer.sent if isinstance(b, Bundle)).messages] == ["a", "b"]  # type: ignore[union-attr]
    assert client.wait_until(lambda: ("a", "a") in arrived)
    assert arrived == [("b", "b"), ("a", "a")]


def test_a_micro_batch_later_what_has_arrived_is_handled() -> None:
    peer = Peer()
    client = client_of(peer)
    arrived: list[GroupResult] = []
    client.request(request("a"), arrived.append)
    client.beat()
    assert arrived == []
    peer.inbox.put(GroupResult("a", ()))
    client.beat()
    assert len(arrived) == 1


def test_a_stop_ends_the_waiting_and_what_is_there_already_counts() -> None:
    client = client_of(Peer(Stop(), WeightsLive(WeightsRef(0, ""), 0.0, 0.0)))
    assert client.wait_until(lambda: client.live is not None)
    assert client.stop_requested
    assert not client.wait_until(lambda: False)


def test_a_refused_request_ends_the_run() -> None:
    client = client_of(Peer(Failed("a", "too long")))
    client.request(request("a"), partial(pytest.fail, "no result"))  # type: ignore[arg-type]
    with pytest.raises(LabError, match="refused request a: too long"):
        client.poll()


def test_results_of_cancelled_requests_are_ignored() -> None:
    peer = Peer()
    client = client_of(peer)
    arrived: list[str] = []
    for name in ("a", "b", "c"):
        client.request(request(name), lambda result: arrived.append(result.request_id))
    client.flush()
    peer.inbox.put(GroupResult("c", ()))
    client.poll()
    client.cancel(["a", "c"])  # c has its result
    client.flush()
    assert [m for m in peer.sent if isinstance(m, Bundle)][1:] == [Bundle((Cancel(("a",)),))]
    for name in ("a", "b"):
        peer.inbox.put(GroupResult(name, ()))
    client.poll()
    assert arrived == ["c", "b"]
