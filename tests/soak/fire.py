"""One training run with faults injected inside its workers (`FAULTS`), and the proof that each of them fired."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from grpo_gsm8k import faults
from grpo_gsm8k.faults import Fault
from tests.conftest import Cli, read_jsonl

# Restarts are forgiven after 10 new updates without a failure, which a run under fire may never have: so the limits are
# out of the way. The deadlines of running workers are longer than the stops that are continued (8 s), not by much.
UNDER_FIRE = (
    *("actor.max_restarts=500", "learner.max_restarts=500"),
    *("actor.progress_timeout_s=15", "learner.progress_timeout_s=25"),
    *("actor.start_timeout_s=600", "learner.start_timeout_s=600"),
)
POLL_S = 0.05
OVERDUE = ("silent for", "no progress for", "not ready after")


@dataclass(frozen=True)
class Fired:
    """How a run under fire ended."""

    run: Path
    code: int
    last_words: str
    faults: list[Fault]
    unproven: list[Fault]

    @property
    def kinds(self) -> dict[str, int]:
        """Number of faults by kind."""
        return dict(sorted(Counter(fault.kind for fault in self.faults).items()))

    @property
    def hooks(self) -> dict[str, int]:
        """Number of faults by hook."""
        return dict(sorted(Counter(fault.hook for fault in self.faults).items()))


def run_under_fire(cli: Cli, words: tuple[str, ...], seed: int, rate: float) -> Fired:
    """Run a command to its end with faults; stopped workers are continued when their line in the log says so."""
    process = cli.start(*words, *UNDER_FIRE, env={faults.VARIABLE: f"{seed}:{rate}"})
    seen: set[int] = set()  # places in the log of the stopped workers that were seen stopped, and continued
    ended = threading.Event()
    rescuer = threading.Thread(target=_continue_stopped, args=(cli, seen, ended))
    rescuer.start()
    try:
        _, errors = process.communicate(timeout=3600)
    finally:
        process.kill()
        ended.set()
        rescuer.join()
    run = cli.runs()[-1]
    lines = faults.read(run / "logs" / faults.LOG)
    unproven = [line for place, line in enumerate(lines) if not _is_proven(line, place, lines, seen, run)]
    last_words = "\n".join(errors.splitlines()[-1:])
    return Fired(run, process.returncode, last_words, [line for line in lines if line.kind != "armed"], unproven)


def _continue_stopped(cli: Cli, seen: set[int], ended: threading.Event) -> None:
    """Continue workers that are stopped, each after the seconds of its line."""
    while not ended.wait(POLL_S):
        runs = cli.runs()
        lines = faults.read(runs[-1] / "logs" / faults.LOG) if runs else []
        for place, line in enumerate(lines):
            due = line.kind == "stop" and line.seconds is not None and time.time() >= line.time + line.seconds
            if due and place not in seen and _is_stopped(line.pid):
                seen.add(place)
                os.kill(line.pid, signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def _is_proven(line: Fault, place: int, lines: list[Fault], seen: set[int], run: Path) -> bool:
    """Whether others than the injector saw the fault: the orchestrator's events, or who continued the process.

    A delay is proven by what its process logs afterwards, or by its own end. At the end of a run nobody is replaced.
    """
    if line.kind in ("armed", "delay") or place in seen:
        return True
    reason = _ends(run).get(line.pid)
    if reason is None:  # it ended with the run: after this line nothing of it is left
        return all(later.pid != line.pid for later in lines[place + 1 :])
    if line.kind == "kill":
        return reason == f"exit code -{signal.SIGKILL.value}"
    return reason.startswith(OVERDUE)


def _ends(run: Path) -> dict[int, str]:
    """Return why each replaced worker was replaced, by its process id."""
    pids: dict[object, int] = {}
    ends = {}
    for event in read_jsonl(run / "events.jsonl"):
        if event["kind"] == "worker_started":
            pids[event["worker"]] = int(str(event["pid"]))
        elif str(event["kind"]).endswith("_restarted"):
            ends[pids[event["worker"]]] = str(event["reason"])
    return ends
