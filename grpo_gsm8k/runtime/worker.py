"""What runs in a child process: its surroundings, its work, its last words."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np  # noqa: F401 - before the channel: its thread unpickles arrays while this one imports

from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.runtime.parent_death import die_with
from grpo_gsm8k.transport.channel import Channel
from grpo_gsm8k.transport.protocol import Crashed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

    from grpo_gsm8k.actor.engine import EngineSpec
    from grpo_gsm8k.learner.spec import LearnerSpec

FAREWELL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`parent` is a process id; `log` takes stdout and stderr; `cores` empty means all."""

    parent: int
    log: Path
    cores: tuple[int, ...]


def actor_main(reader: Connection, writer: Connection, surroundings: Surroundings, spec: EngineSpec) -> None:
    """Entry point of an actor process."""

    def work(channel: Channel) -> None:
        with _nothing_to_collect():
            from grpo_gsm8k.actor.engine import build_engine
            from grpo_gsm8k.actor.loop import Actor

            engine = build_engine(spec)
        Actor(engine, channel, spec.own_version).run()

    _run(reader, writer, surroundings, work)


def learner_main(reader: Connection, writer: Connection, surroundings: Surroundings, spec: LearnerSpec) -> None:
    """Entry point of a learner process."""

    def work(channel: Channel) -> None:
        with _nothing_to_collect():
            from grpo_gsm8k.learner.run_learner import run_learner

        run_learner(spec, channel)

    _run(reader, writer, surroundings, work)


def _run(reader: Connection, writer: Connection, surroundings: Surroundings, work: Callable[[Channel], None]) -> None:
    _settle(surroundings)
    channel = Channel(reader, writer, on_closed=_orphaned)
    try:
        work(channel)
    except Exception as error:  # noqa: BLE001 - the process ends here: the parent must learn why
        traceback.print_exc()
        expected = isinstance(error, LabError)
        text = str(error) if expected else f"{type(error).__name__}: {error}"
        channel.send(Crashed(text, fatal=expected, user_error=isinstance(error, UserError)))
    channel.close(FAREWELL_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # engine threads and atexit hooks of libraries must not keep a finished worker alive


def _settle(surroundings: Surroundings) -> None:
    """Die with the parent, leave signals to it, write to the log, stay on the given cores."""
    die_with(surroundings.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says what to do
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log = os.open(surroundings.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    os.close(log)
    if surroundings.cores:
        os.sched_setaffinity(0, surroundings.cores)


@contextlib.contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """Imports make a million objects that stay: looking for garbage among them costs a fifth of a worker's start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _orphaned() -> None:
    """The parent's end of the channel is gone, and so is any reason to live."""
    os._exit(1)
