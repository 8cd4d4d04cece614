"""Whether a run under faults has lost something, after the definition of "nothing lost" in docs/reliability.md."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from grpo_gsm8k.tracking import ledger
from grpo_gsm8k.transport.weights_store import WeightsStore
from tests.conftest import read_jsonl
from tests.soak.tormented import Tormented

MORE_DESCRIPTORS = 16  # than in the undisturbed run: those of a worker that is being replaced
MORE_MEMORY_MB = 100.0
RANDOM_FLIPS = 0.002  # of completions: the batch is another one after a fault, and its rounding can change a token


def lost(tormented: Tormented, whole: Tormented) -> list[str]:
    """Return what is wrong in comparison with the undisturbed run, empty if nothing is."""
    for made in (whole, tormented):
        if made.code != 0 or made.run is None:
            return [f"ended with exit code {made.code}: {made.last_words}"]
    if others := sorted({code for code in tormented.codes if code not in (0, -signal.SIGKILL)}):
        return [f"some starts ended with the exit codes {others}: {tormented.errors}"]
    assert tormented.run is not None
    assert whole.run is not None
    problems = []
    if tormented.task.name == "eval":
        problems += _evaluation_problems(tormented.run, whole.run, exact=tormented.engine == "scripted")
    else:
        problems += lost_in(tormented.run, tormented.task.updates)
        if _uses(tormented.run) != _uses(whole.run):
            problems.append("the ledger has other prompts than that of the undisturbed run")
    if tormented.task.name == "sft":
        problems += _differences(tormented.run, whole.run, tormented.task.updates)
    if tormented.most_descriptors > whole.most_descriptors + MORE_DESCRIPTORS:
        problems.append(f"{tormented.most_descriptors} descriptors instead of {whole.most_descriptors}")
    if tormented.most_rss_mb > whole.most_rss_mb + MORE_MEMORY_MB:
        problems.append(f"{tormented.most_rss_mb:.0f} MB instead of {whole.most_rss_mb:.0f}")
    return problems + _left_behind(tormented.run)


def lost_in(run: Path, updates: int) -> list[str]:
    """Return what a training run that ended with exit code 0 lacks, has too much, or has left behind."""
    problems = []
    if json.loads((run / "summary.json").read_text())["status"] != "done":
        problems.append("the summary does not say done")
    records = read_jsonl(run / "metrics.jsonl")
    steps = [record["step"] for record in records if "step" in record]
    if steps != list(range(1, updates + 1)):
        problems.append(f"metrics have the updates {steps}")
    validations = Counter(record["val/version"] for record in records if "val/version" in record)
    if again := [version for version, count in validations.items() if count > 1]:
        problems.append(f"metrics have several validations of {again}")
    account = ledger.read(run / "ledger.jsonl")
    uses = [(use.epoch, use.prompt_id) for use in account.uses()]
    if sorted(account.steps) != list(range(1, updates + 1)):
        problems.append(f"the ledger has the updates {sorted(account.steps)}")
    if len(uses) != len(set(uses)):
        problems.append(f"{len(uses) - len(set(uses))} prompts were used twice in an epoch")
    if not (run / f"checkpoints/step_{updates}/manifest.json").exists():
        problems.append("the last checkpoint is missing")
    return problems + _left_behind(run)


def weights_of(run: Path, updates: int) -> dict[str, bytes]:
    """Return all tensor files of a checkpoint: model, optimizer, critic, random state."""
    folder = run / f"checkpoints/step_{updates}"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def _differences(run: Path, whole: Path, updates: int) -> list[str]:
    found, expected = weights_of(run, updates), weights_of(whole, updates)
    if len(expected) < 3:
        return [f"the undisturbed checkpoint has the files {sorted(expected)} alone"]
    other = [name for name in expected if found.get(name) != expected[name]]
    return [f"{name} differs from that of the undisturbed run" for name in other]


def _uses(run: Path) -> set[tuple[int, str]]:
    return {(use.epoch, use.prompt_id) for use in ledger.read(run / "ledger.jsonl").uses()}


def _evaluation_problems(run: Path, whole: Path, exact: bool) -> list[str]:
    """Compare the answers: each once, and the same ones; not `exact`: but for some that rounding has changed."""
    found, expected = _answers(run), _answers(whole)
    keys, expected_keys = [_key(line) for line in found], [_key(line) for line in expected]
    if keys != expected_keys:
        missing = len(set(expected_keys) - set(keys))
        return [f"{missing} answers are missing, {len(keys) - len(set(keys))} are there twice, or the order differs"]
    if exact:
        same = (run / "predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()
        results = [json.loads((r / "summary.json").read_text())["results"] for r in (run, whole)]
        problems = [] if same else ["predictions.jsonl differs from that of the undisturbed run"]
        return problems if results[0] == results[1] else [*problems, "the results differ"]
    others = sum(a["text"] != b["text"] for a, b in zip(found, expected, strict=True))
    return [f"{others} of {len(found)} texts differ"] if others > RANDOM_FLIPS * len(found) else []


def _answers(run: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(run / "predictions.jsonl"))


def _key(line: dict[str, Any]) -> tuple[object, ...]:
    return line["model"], line["prompting"], line["temperature"], line["item_id"], line["sample"]


def _left_behind(run: Path) -> list[str]:
    problems = []
    if list((run / "checkpoints").glob(".step_*.tmp")):
        problems.append("a half-written checkpoint is left")
    if WeightsStore(Path("/dev/shm"), run).root.exists():
        problems.append("weights are left in /dev/shm")
    if left := _left_processes(run):
        problems.append(f"processes are left: {left}")
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
