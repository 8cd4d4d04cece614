"""Whether a run under faults has lost something, after the definition of "nothing lost" in docs/reliability.md."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil

from grpo_gsm8k.tracking import ledger
from grpo_gsm8k.transport.weights_store import WeightsStore
from tests.conftest import read_jsonl
from tests.soak.tormented import Tormented


def lost(tormented: Tormented) -> list[str]:
    """Return what is wrong, empty if nothing is."""
    run, updates = tormented.run, tormented.task.updates
    if tormented.code != 0 or run is None:
        return [f"ended with exit code {tormented.code}: {tormented.last_words}"]
    return lost_in(run, updates)


def lost_in(run: Path, updates: int) -> list[str]:
    """Return what a training run that ended with exit code 0 lacks, or has too much, or has left behind."""
    problems = []
    if json.loads((run / "summary.json").read_text())["status"] != "done":
        problems.append("the summary does not say done")
    steps = [record["step"] for record in read_jsonl(run / "metrics.jsonl") if "step" in record]
    if steps != list(range(1, updates + 1)):
        problems.append(f"metrics have the updates {steps}")
    problems += _ledger_problems(run, updates)
    if not (run / f"checkpoints/step_{updates}/manifest.json").exists():
        problems.append("the last checkpoint is missing")
    if list((run / "checkpoints").glob(".step_*.tmp")):
        problems.append("a half-written checkpoint is left")
    if WeightsStore(Path("/dev/shm"), run).root.exists():
        problems.append("weights are left in /dev/shm")
    if left := _left_processes(run):
        problems.append(f"processes are left: {left}")
    return problems


def _ledger_problems(run: Path, updates: int) -> list[str]:
    account = ledger.read(run / "ledger.jsonl")
    uses = [(use.epoch, use.prompt_id) for use in account.uses()]
    problems = []
    if sorted(account.steps) != list(range(1, updates + 1)):
        problems.append(f"the ledger has the updates {sorted(account.steps)}")
    if len(uses) != len(set(uses)):
        problems.append(f"{len(uses) - len(set(uses))} prompts were used twice in an epoch")
    return problems


def _left_processes(run: Path) -> list[int]:
    """Return processes that still write into the run's folder, after they had 10 s to end."""
    until = time.monotonic() + 10
    while (left := _users(run)) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def _users(run: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(Path(file.path).is_relative_to(run) for file in process.open_files()):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
