"""Entry points of the worker processes: setup, main loop, crash report."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np  # noqa: F401 - before the channel opens: its thread unpickles arrays while this one imports

from grpo_gsm8k import faults
from grpo_gsm8k.children.parent_death import die_with
from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.files.aside import refuse_link
from grpo_gsm8k.transport.channel import Channel
from grpo_gsm8k.transport.protocol import Crashed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from grpo_gsm8k.actor.engine import EngineSpec
    from grpo_gsm8k.learner.spec import LearnerSpec
    from grpo_gsm8k.transport.channel import Reader, Writer

# transformers and requests import these when they are installed (lm-eval and other tools need them). A worker uses
# neither, and without them it starts a tenth faster.
UNUSED = ("sklearn", "chardet")
CLOSE_SECONDS = 5.0  # for the messages that are still queued when a worker ends


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """`parent` is a process id; `log` receives stdout and stderr; empty `cores` means all."""

    parent: int
    log: Path
    cores: tuple[int, ...]


def worker_setup(logs: Path, name: str, cores: list[int]) -> WorkerSetup:
    """Return the setup of the worker process `name`, a child of this process; creates the folder `logs`."""
    refuse_link(logs)
    logs.mkdir(exist_ok=True)
    log = logs / f"{name}.log"
    if log.is_symlink() or (log.exists() and not log.is_file()):
        raise UserError(f"{log} is a link or no file: remove it")
    return WorkerSetup(os.getpid(), log, tuple(cores))


def actor_main(reader: Reader, writer: Writer, setup: WorkerSetup, spec: EngineSpec) -> None:
    """Entry point of an actor process."""

    def work(channel: Channel) -> None:
        with _garbage_collection_paused():
            from grpo_gsm8k.actor.run_actor import import_engine, run_actor, told_to_start

            engine_class = import_engine(spec)
        if not told_to_start(channel):
            return
        with _garbage_collection_paused():
            engine = engine_class(spec)
        run_actor(engine, channel, spec)

    _run(reader, writer, setup, work)


def learner_main(reader: Reader, writer: Writer, setup: WorkerSetup, spec: LearnerSpec) -> None:
    """Entry point of a learner process."""

    def work(channel: Channel) -> None:
        with _garbage_collection_paused():
            from grpo_gsm8k.learner.run_learner import run_learner

        run_learner(spec, channel)

    _run(reader, writer, setup, work)


def _run(reader: Reader, writer: Writer, setup: WorkerSetup, work: Callable[[Channel], None]) -> None:
    _apply(setup)
    channel = Channel(reader, faults.halving(writer), on_closed=_exit_without_parent)
    try:
        _pin(setup.cores)
        work(channel)
    except Exception as error:  # noqa: BLE001 - the process ends here: its parent needs the reason
        traceback.print_exc()
        expected = isinstance(error, LabError)
        text = str(error) if expected else f"{type(error).__name__}: {error}"
        channel.send(Crashed(text, fatal=expected, user_error=isinstance(error, UserError)))
    channel.close(CLOSE_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # engine threads and atexit hooks of libraries must not keep a finished worker alive


def _apply(setup: WorkerSetup) -> None:
    """Die with the parent, leave signals to it, write to the log, never through a link, import no `UNUSED`."""
    die_with(setup.parent)
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None: an import raises ModuleNotFoundError
    # Ctrl-C and a closed terminal reach the whole process group; the parent sends `Stop`.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    log = os.open(setup.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    os.close(log)
    faults.arm(setup.log.stem, setup.log.with_name(faults.LOG))


def _pin(cores: tuple[int, ...]) -> None:
    """Stay on the given cores. Raises UserError if this process may use none of them."""
    try:
        if cores:
            os.sched_setaffinity(0, cores)
    except OSError:
        usable = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        raise UserError(f"cores={list(cores)} of actor or learner: this process may use the cores {usable}") from None


@contextlib.contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Pause the collector, and exempt what was allocated meanwhile from all later collections.

    Imports allocate about a million objects that stay; scanning them takes a fifth of a worker's start-up time. vLLM
    collects five times while it builds an engine, which took 2 of 3.5 s with the imported objects not yet exempt.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _exit_without_parent() -> None:
    """Exit when the parent's end of the channel is closed: no one is left to use this worker's results."""
    os._exit(1)
