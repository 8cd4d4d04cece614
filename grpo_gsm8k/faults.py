"""Faults on purpose, for tests: `FAULTS=seed:rate` in the environment kills, stops and delays workers at named places.

Without the variable, `hook` does nothing but compare a variable of this module with None. With it, whether a fault
fires is a pure function of seed, process, incarnation, hook and how often the process has come to that hook. So a
run can be repeated, and a replaced process meets its faults elsewhere. Each fault is a line of `logs/faults.jsonl`,
on the disk before the fault happens.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import signal
import struct
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "FAULTS"
LOG = "faults.jsonl"
# By hook: about how often a worker of a small run comes to it per update. A fault fires there with the probability
# rate / this number, so that a place that is reached with every token does not take all faults.
HOOKS = {
    "engine.step": 60,  # in mid-generation
    "swap.verified": 1,  # new weights are verified, the engine still has the old ones
    "swap.loaded": 1,  # the engine has new weights, its canary is not checked
    "message.half": 60,  # half of a message is in the pipe
    "optimizer.before": 1,
    "optimizer.after": 1,
    "rename.before": 3,  # a file or folder is complete under its hidden name
    "rename.after": 3,
    "save.model": 0.5,  # a checkpoint has the model, and no optimizer
    "save.complete": 0.5,  # a checkpoint is complete, and waits for the record of its update
}
Kind = Literal["armed", "kill", "stop", "delay"]
KINDS: tuple[Kind, ...] = ("kill", "stop", "delay")
LONGEST_DELAY_S = 3.0
LONGEST_STOP_S = 8.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the log. `armed` says that a process has begun; the other kinds are faults.

    `seconds` is the length of a delay. A stopped process stays stopped: whoever reads the log may continue it after
    `seconds`, and for None it is left to the deadlines of the process that watches it.
    """

    kind: Kind
    process: str
    incarnation: int  # how many processes of this name the run had before
    pid: int
    time: float  # Unix time
    hook: str = ""
    call: int = 0  # how often this process has come to the hook, from 1
    where: str = ""  # the name of the file or folder at the hook, if any
    seconds: float | None = None


class Injector:
    """Decides about the faults of this process, logs them and lets them happen."""

    def __init__(self, seed: int, rate: float, process: str, log: Path) -> None:
        """Count earlier processes of this name in the log, and add this one."""
        self._seed = seed
        self._rate = rate
        self._process = process
        self._log = log
        self._calls: Counter[str] = Counter()
        self._lock = threading.Lock()  # hooks are in several threads
        self._incarnation = sum(fault.kind == "armed" and fault.process == process for fault in read(log))
        self._append(self._line("armed"))

    def at(self, hook: str, where: str) -> None:
        """Let a fault happen if one is due at this call of the hook."""
        with self._lock:
            self._calls[hook] += 1
            call = self._calls[hook]
        rng = random.Random(f"{self._seed}:{self._process}:{self._incarnation}:{hook}:{call}")
        if rng.random() >= self._rate / HOOKS[hook]:
            return
        kind = rng.choice(KINDS)
        seconds = None
        if kind == "delay":
            seconds = rng.uniform(0.0, LONGEST_DELAY_S)
        elif kind == "stop" and rng.random() < 0.5:
            seconds = rng.uniform(0.0, LONGEST_STOP_S)
        self._append(self._line(kind, hook, call, where, seconds))
        if kind == "delay":
            time.sleep(seconds or 0.0)
        else:
            os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGSTOP)

    def _line(self, kind: Kind, *rest: Any) -> Fault:
        return Fault(kind, self._process, self._incarnation, os.getpid(), time.time(), *rest)

    def _append(self, line: Fault) -> None:
        """Append a line, and return when it is on the disk."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._log, flags, 0o600)
        try:
            os.write(descriptor, json.dumps(asdict(line)).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class HalvingWriter:
    """Sends each message in two writes with a hook between them, in the format of multiprocessing's connections."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def send(self, obj: object) -> None:
        """Send an object: its length in four bytes, then its pickle. Raises OSError when the peer is gone."""
        content = pickle.dumps(obj)
        message = struct.pack("!i", len(content)) + content
        half = len(message) // 2
        self._write(message[:half])
        hook("message.half")
        self._write(message[half:])

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    def _write(self, content: bytes) -> None:
        while content:
            content = content[os.write(self._writer.fileno(), content) :]


_injector: Injector | None = None


def hook(name: str, where: str = "") -> None:
    """Mark a place at which a fault can happen; `name` is one of HOOKS, `where` the name of a file there."""
    if _injector is not None:
        _injector.at(name, where)


def requested() -> tuple[int, float] | None:
    """Return seed and rate of the environment, None if the variable is not set. Raises UserError."""
    text = os.environ.get(VARIABLE)
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,18}):(\d*\.?\d+)", text, re.ASCII)
    if match is None or not 0 < float(match[2]) <= 1:
        raise UserError(
            f"{VARIABLE}={text!r}: give a seed and a rate above 0 and at most 1, such as {VARIABLE}=1:0.05, or unset it"
        )
    return int(match[1]), float(match[2])


def arm(process: str, log: Path) -> None:
    """Begin to inject faults into this process if the environment asks for it. Raises UserError."""
    global _injector
    if (asked := requested()) is not None:
        _injector = Injector(*asked, process, log)


def halving(writer: Any) -> Any:
    """Return a writer with a hook in the middle of each message, or `writer` itself without faults."""
    return writer if _injector is None else HalvingWriter(writer)


def read(log: Path) -> list[Fault]:
    """Return the lines of a log, oldest first; none if the file does not exist."""
    return [Fault(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []
