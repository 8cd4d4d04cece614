"""The child's side of `LimitedChild`: reads requests, answers them, and ends with its parent."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.children.no_network import leave_network
from grpo_gsm8k.children.parent_death import die_with

if TYPE_CHECKING:
    from collections.abc import Callable

OPEN_FILES = 256
FILE_BYTES = 2**30  # the largest file that a child may write: a runaway log does not fill the disk


def serve(prepare: Callable[[], Callable[[Any], Any]]) -> None:
    """Answer requests until the parent closes the pipe. `prepare` runs within the memory limit and returns the handler.

    What the handler prints goes to stderr: stdout belongs to the answers. An exception becomes the answer's error.
    """
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    setup = json.loads(requests.readline())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent decides
    if not setup["network"]:
        leave_network()  # first: a change of credentials clears the signal of the next line
    die_with(setup["parent"])
    limit = setup["memory_mb"] << 20
    # Data, not address space: libraries reserve far more address space than they use.
    _limit(resource.RLIMIT_DATA, limit)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    _limit(resource.RLIMIT_FSIZE, FILE_BYTES)
    handler, reply = _attempt(lambda _: prepare(), None)
    _write(answers, {"value": None} if handler else reply)
    if handler is None:
        return
    while line := requests.readline():
        value, reply = _attempt(handler, json.loads(line))
        _write(answers, reply or {"value": value})


def _limit(kind: int, value: int) -> None:
    """Set a limit, or keep the machine's own if that is lower: only root may raise it."""
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _attempt(work: Callable[[Any], Any], argument: Any) -> tuple[Any, dict[str, Any]]:
    """Return the value of a call and an empty reply, or None and the reply that describes its failure."""
    try:
        return work(argument), {}
    except MemoryError:
        return None, {"out_of_memory": True}
    except (Exception, SystemExit) as error:  # noqa: BLE001  reported to the parent, which decides
        return None, {"error": f"{type(error).__name__}: {error}"}


def _write(pipe: Any, reply: dict[str, Any]) -> None:
    pipe.write(json.dumps(reply).encode() + b"\n")
    pipe.flush()
