"""Step 9: whole runs with actor and learner on one device; the actor of the second is killed once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_check.outcome import StepFailedError, require
from benchmarks.gpu_check.setup import REPO, run_cli

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup

DATA = ("data.train_size=96", "data.val_size=8", "data.test_size=4")
UPDATES = 3
POLL_S = 0.05


def check(setup: Setup, record: Record) -> None:
    """Fail unless fine-tuning and policy gradient finish, the latter with a restarted actor."""
    run_cli(setup, "command=preprocess", *DATA)
    started = time.monotonic()
    run_cli(setup, "command=sft", *DATA, "sft.epochs=1", "sft.min_tokens_per_update=600", "sft.eval_limit=8")
    record("sft: seconds of the run", time.monotonic() - started)
    record("sft: updates", steps_of(newest_run(setup)))
    started = time.monotonic()
    run = run_with_a_killed_actor(setup)
    record("policy gradient: seconds of the run", time.monotonic() - started)
    events = read_lines(run / "events.jsonl")
    starts = [e for e in events if e["kind"] == "worker_started" and e["worker"].startswith("actor")]
    learner = next(e for e in events if e["kind"] == "worker_started" and e["worker"] == "learner")
    record("policy gradient: updates", steps_of(run))
    record("policy gradient: starts of the actor", len(starts))
    record("seconds from the learner's to the actor's start", float(starts[0]["time"] - learner["time"]))
    require(steps_of(run) == UPDATES, f"{steps_of(run)} of {UPDATES} updates were done")
    require(len(starts) == 2, f"the actor was started {len(starts)} times instead of twice")


def run_with_a_killed_actor(setup: Setup) -> Path:
    """Run policy gradient, and kill the actor after the first update. Returns the run's folder."""
    before = set(runs_of(setup))
    words = ["command=policy_gradient", *DATA, f"policy_gradient.updates={UPDATES}", "policy_gradient.eval_limit=8"]
    # The actor generates at most one update ahead, so it still has work when the first update is done.
    words += ["policy_gradient.episodes_per_update=32", "policy_gradient.max_staleness=0"]
    command = [sys.executable, str(REPO / "cli.py"), *setup.preset, f"artifacts={setup.folder}", *words]
    process = subprocess.Popen(command, cwd=REPO, stdout=sys.stdout, stderr=sys.stderr)
    killed = False
    while process.poll() is None:
        new = sorted(set(runs_of(setup)) - before)
        if not killed and new and steps_of(new[0]):
            os.kill(_actor_pid(new[0]), signal.SIGKILL)
            killed = True
        time.sleep(POLL_S)
    if process.returncode:
        raise StepFailedError(f"the run ended with exit code {process.returncode}")
    require(killed, "the run ended before its actor was killed")
    return newest_run(setup)


def runs_of(setup: Setup) -> list[Path]:
    """Return the run folders, oldest first."""
    return sorted((setup.folder / "runs").glob("*"))


def newest_run(setup: Setup) -> Path:
    """Return the folder of the run that was started last."""
    return max(runs_of(setup), key=lambda run: run.stat().st_ctime)


def steps_of(run: Path) -> int:
    """Return how many updates a run has recorded."""
    return sum("step" in record for record in read_lines(run / "metrics.jsonl"))


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a JSONL file; none if it does not exist yet."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


def _actor_pid(run: Path) -> int:
    events = read_lines(run / "events.jsonl")
    found = [e["pid"] for e in events if e["kind"] == "worker_started" and e["worker"].startswith("actor")]
    return int(found[-1])
