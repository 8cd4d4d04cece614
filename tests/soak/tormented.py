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

FAULTS = (signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP)
LONGEST_RUN_S = 900.0
ATTEMPTS = 40  # starts of one run


@dataclass(frozen=True)
class Task:
    """A command that is run to its end; `section` is that of its resume_from."""

    name: str
    words: tuple[str, ...]
    section: str
    updates: int


_LIMITS = ("actor.max_restarts=100", "learner.max_restarts=100", "actor.progress_timeout_s=5")
TASKS = (
    Task(
        "policy_gradient",
        (
            "command=policy_gradient",
            "policy_gradient.updates=20",
            "policy_gradient.episodes_per_update=64",
            "policy_gradient.eval_every=5",
            "policy_gradient.eval_limit=32",
            "policy_gradient.save_every=2",
            "learner.progress_timeout_s=10",
            *_LIMITS,
        ),
        "policy_gradient",
        20,
    ),
)


@dataclass
class Tormented:
    """What was done to a run, and how it ended."""

    task: Task
    cli: Cli
    faults: list[str] = field(default_factory=list)
    starts: int = 0
    code: int | None = None
    last_words: str = ""
    most_rss_mb: float = 0.0
    most_descriptors: int = 0
    seconds: float = 0.0

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
            "code": self.code,
            "seconds": round(self.seconds, 1),
            "most_rss_mb": round(self.most_rss_mb),
            "most_descriptors": self.most_descriptors,
        }


def torment(cli: Cli, task: Task, engine: str, rng: random.Random, at_most: int) -> Tormented:
    """Run a task to its end, with at most `at_most` faults; it is resumed whenever its orchestrator was killed."""
    made = Tormented(task, cli)
    started = time.monotonic()
    words = [*task.words, "preset=cpu_demo", "wandb.mode=off", f"actor.engine={engine}"]
    while made.starts < ATTEMPTS and time.monotonic() - started < LONGEST_RUN_S:
        resume = [f"{task.section}.resume_from={made.run}"] if _has_checkpoint(made.run) else []
        made.starts += 1
        process = cli.start(*words, *resume)
        while process.poll() is None:
            _wait(process, rng.uniform(0.5, 8.0), made)
            if process.poll() is None and len(made.faults) < at_most and rng.random() < 0.8:
                _strike(process, rng, made)
        made.last_words = "\n".join((process.communicate()[1] or "").splitlines()[-1:])
        made.code = process.returncode
        if made.code == 0:
            break
    made.seconds = time.monotonic() - started
    return made


def _has_checkpoint(run: Path | None) -> bool:
    return run is not None and any(run.glob("checkpoints/step_*/manifest.json"))


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
    if not family:
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
