"""Entry point of an actor process on another machine: connect to the run, then be an actor as any other.

Started by `Host` as `python -m grpo_gsm8k.cluster.dial_back`. Its job comes through stdin, because that holds the key.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.cluster.dial_in import Hello
from grpo_gsm8k.runtime.worker import WorkerSetup, actor_main

if TYPE_CHECKING:
    from grpo_gsm8k.actor.engine import EngineSpec


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """Where to connect, as whom, and what to do; the folders are those of the machine that starts the run."""

    address: tuple[str, int]
    key: bytes
    worker_id: str
    cores: tuple[int, ...]
    spec: EngineSpec


@dataclass(frozen=True, slots=True)
class NodePaths:
    """The folders of the worker's own machine."""

    log: str
    model_folder: str


def main() -> None:
    """Read `NodePaths` and `WorkerJob` from stdin, connect twice, and serve requests until the connection ends."""
    from_host = Connection(os.dup(sys.stdin.fileno()), writable=False)
    paths: NodePaths = from_host.recv()
    job: WorkerJob = from_host.recv()
    writer = Client(job.address, authkey=job.key)
    writer.send(Hello(job.worker_id, reads=True, pid=os.getpid()))
    reader = Client(job.address, authkey=job.key)
    reader.send(Hello(job.worker_id, reads=False, pid=os.getpid()))
    setup = WorkerSetup(os.getppid(), Path(paths.log), job.cores)
    actor_main(reader, writer, setup, replace(job.spec, model_folder=paths.model_folder))


if __name__ == "__main__":
    main()
