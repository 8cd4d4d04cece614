"""One run under random faults."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import Cli
from tests.soak.tasks import Task

FAULTS = (signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP)
LONGEST_RUN_S = 900.0
ATTEMPTS = 40  # starts of one run


@dataclass
class Tormented:
    """What was done to a run, and how it ended."""

    task: Task
    engine: str
    cli: Cli
    faults: list[str] = field(default_factory=list)
    starts: int = 0
    codes: list[int] = field(default_factory=list)  # of all starts
    errors: list[str] = field(default_factory=list)  # the last lines of starts that ended with one
    most_rss_mb: float = 0.0
    most_descriptors: int = 0
    seconds: float = 0.0

    @property
    def code(self) -> int | None:
        """Exit code of the last start."""
        return self.codes[-1] if self.codes else None

    @property
    def last_words(self) -> str:
        """The reason of the last error."""
        return self.errors[-1] if self.errors else ""

    @property
    def run(self) -> Path | None:
        """The run folder, if one was made."""
        runs = self.cli.runs()
        return runs[-1] if runs else None

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON line of the run says."""
        return {
            "faults": self.faults,
            "starts": self.starts,
            "codes": self.codes,
            "seconds": round(self.seconds, 1),
            "most_rss_mb": round(self.most_rss_mb),
            "most_descriptors": self.most_descriptors,
        }


def torment(cli: Cli, task: Task, engine: str, rng: random.Random, at_most: int) -> Tormented:
    """Run a task to its end, with at most `at_most` faults; it is resumed whenever its orchestrator was killed."""
    made = Tormented(task, engine, cli)
    started = time.monotonic()
    words = [*task.words, f"actor.engine={engine}"]
    for command in task.before:
        cli.run(*command)
    while made.starts < ATTEMPTS and time.monotonic() - started < LONGEST_RUN_S:
        resume = [f"{task.section}.resume_from={made.run}"] if _resumable(made.run, task) else []
        made.starts += 1
        process = cli.start(*words, *resume)
        while process.poll() is None:
            if time.monotonic() - started > LONGEST_RUN_S:
                process.kill()
                made.errors.append(f"not done after {LONGEST_RUN_S:g} s")
            _wait(process, rng.uniform(0.5, task.longest_pause_s), made)
            if process.poll() is None and len(made.faults) < at_most and rng.random() < 0.8:
                _strike(process, rng, made)
        errors = process.communicate()[1]
        made.codes.append(process.returncode)
        if process.returncode == 0:
            break
        if process.returncode > 0:
            made.errors += errors.splitlines()[-1:]
    made.seconds = time.monotonic() - started
    return made


def _resumable(run: Path | None, task: Task) -> bool:
    return run is not None and any(run.glob(task.resumable))


def _wait(process: subprocess.Popen[str], seconds: float, made: Tormented) -> None:
    """Wait, and note the largest memory and number of descriptors of the orchestrator."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        try:
            info = psutil.Process(process.pid)
            made.most_rss_mb = max(made.most_rss_mb, info.memory_info().rss / 2**20)
            made.most_descriptors = max(made.most_descriptors, info.num_fds())
        except psutil.NoSuchProcess:
            return
        time.sleep(0.1)


def _strike(process: subprocess.Popen[str], rng: random.Random, made: Tormented) -> None:
    """Kill or stop one process of the run; a stopped orchestrator is continued after 8 s, longer than its deadlines."""
    family = _family(process)
    if not family or (len(family) == 1 and rng.random() < 0.7):  # most faults wait until there are workers
        return
    name = rng.choice(sorted(family))
    number = rng.choice(FAULTS)
    try:
        os.kill(family[name], number)
    except ProcessLookupError:
        return
    made.faults.append(f"{number.name} {name}")
    if name == "orchestrator" and number == signal.SIGSTOP:
        time.sleep(8)
        os.kill(family[name], signal.SIGCONT)


def _family(process: subprocess.Popen[str]) -> dict[str, int]:
    """Return the processes of a run by name; multiprocessing's helper is not one of ours."""
    found = {"orchestrator": process.pid}
    try:
        children = psutil.Process(process.pid).children()
        for number, child in enumerate(children):
            if "resource_tracker" not in " ".join(child.cmdline()):
                found[f"worker {number}"] = child.pid
    except psutil.NoSuchProcess:
        return {}
    return found
