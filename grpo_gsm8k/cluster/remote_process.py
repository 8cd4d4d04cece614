"""A worker's process on a machine of the cluster, as the run sees it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.cluster.ray_calls import NodeLostError

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.cluster.dial_in import DialIn
    from grpo_gsm8k.cluster.late_connection import LateConnection
    from grpo_gsm8k.cluster.node import Node

PING_SECONDS = 2.0  # for an answer of a machine whose worker has just ended


@dataclass(eq=False)
class RemoteProcess:
    """A worker's process on a node."""

    worker_id: str
    name: str
    node: Node
    ends: tuple[LateConnection, LateConnection]
    dial_in: DialIn
    logs: Path
    ending: list[threading.Thread]  # of all workers of the run: they end a worker and fetch its log
    here: bool = False
    pid: int | None = None

    def __post_init__(self) -> None:
        """Nothing has ended."""
        self.ended = threading.Event()

    @property
    def machine_lost(self) -> bool:
        """Whether its machine, or our process on it, is gone; asks if that is not known yet."""
        return not self.node.alive or not self.node.answers(PING_SECONDS)

    @property
    def exit_reason(self) -> str:
        """What is known about its end."""
        lost = f"its node {self.node.address} is gone"
        return lost if not self.node.alive else f"its connection to {self.node.address} has ended"

    def join(self, timeout: float) -> None:
        """Wait until its channel has ended."""
        self.ended.wait(timeout)

    def kill(self) -> None:
        """End it without waiting, free its place, and fetch the end of its log in a thread."""
        self.dial_in.forget(self.worker_id)
        for end in self.ends:
            end.abort()
        for place in [place for place, taken in self.node.places.items() if taken is self]:
            del self.node.places[place]
        if self.node.alive:
            self.ending.append(threading.Thread(target=self._end_there, daemon=True))
            self.ending[-1].start()

    def _end_there(self) -> None:
        try:
            self.node.call("end", self.worker_id)
            content = self.node.call("log", self.name)
        except NodeLostError:
            return
        (self.logs / f"{self.name}.{self.node.node_id[:8]}.log").write_bytes(content)
