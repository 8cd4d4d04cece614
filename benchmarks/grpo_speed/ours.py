"""Our side: a whole run from the command line, with actor, learner and orchestrator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.grpo_speed.measured import Round, Update
from benchmarks.grpo_speed.memory import MemoryWatch
from benchmarks.grpo_speed.workload import GROUP_FILE, REWARD_FILE, VALIDATION

if TYPE_CHECKING:
    from benchmarks.grpo_speed.workload import Size

REPO = Path(__file__).resolve().parent.parent.parent
# Both threads for generation, then both for learning. Overlapping them with one thread each takes as long in theory,
# and longer where one side is the slower one.
BEST = ("actor.threads=2", "learner.threads=2", "policy_gradient.max_staleness=0")


def arguments(folder: Path, model: Path, size: Size, updates: int, best: tuple[str, ...]) -> list[str]:
    """Return the run's command line without `artifacts` and `shm`."""
    return [
        *("command=policy_gradient", "preset=cpu_smollm2", "prompt=base", "wandb.mode=off"),
        *(f"model.path={model}", "actor.dtype=float32", "learner.dtype=float32"),
        *("data=jsonl", f"data.train_path={folder / GROUP_FILE}", "data.test_size=1", f"data.val_size={VALIDATION}"),
        f"policy_gradient.rewards_file={folder / REWARD_FILE}",
        "policy_gradient.rewards={spread: 1.0}",
        f"policy_gradient.group_size={size.group}",
        f"policy_gradient.episodes_per_update={size.completions}",
        f"policy_gradient.max_new_tokens={size.tokens}",
        f"policy_gradient.updates={updates}",
        *("policy_gradient.eval_every=1000", "policy_gradient.eval_limit=1", "policy_gradient.save_every=1000"),
        *("learner.lr=1e-6", "learner.schedule=constant", "learner.warmup_updates=0"),
        *("actor.max_model_len=512", "actor.probe=false", "learner.max_restarts=0", "actor.max_restarts=0"),
        *best,
    ]


def run_ours(folder: Path, model: Path, size: Size, updates: int, best: tuple[str, ...]) -> Round:
    """Run `updates` updates. Raises RuntimeError with the error of a run that fails."""
    artifacts = Path(tempfile.mkdtemp(dir=folder))
    shm_root = Path("/dev/shm") if Path("/dev/shm").is_dir() else folder
    shm = Path(tempfile.mkdtemp(prefix="grpo_speed.", dir=shm_root))
    command = [sys.executable, str(REPO / "cli.py"), *arguments(folder, model, size, updates, best)]
    command += [f"artifacts={artifacts}", f"shm={shm}"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TORCHDYNAMO_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with (artifacts / "output.txt").open("w+") as output:
        process = subprocess.Popen(command, cwd=REPO, env=environment, stdout=output, stderr=output, text=True)
        watch = MemoryWatch(process, shm)
        code = process.wait()
        memory = watch.stop()
        output.seek(0)
        lines = [line for line in output.read().splitlines() if line.strip()]
    shutil.rmtree(shm)
    if code:
        error = next((line for line in lines if line.startswith("error:")), lines[-1] if lines else "no output")
        raise RuntimeError(f"our run ended with exit code {code}: {error}")
    (run,) = (artifacts / "runs").glob("*")
    return Round(updates_of(run, size), memory)


def updates_of(run: Path, size: Size) -> list[Update]:
    """Return the times of each update from the run's records. Raises RuntimeError if a completion ended early.

    Generation is the time until the learner has its rollouts; training is the rest, publishing and records included.
    """
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if "step" in record]
    return [_update(record, size) for record in steps]


def _update(record: dict[str, Any], size: Size) -> Update:
    if record["rollout/length_mean"] != size.tokens or record["train/frac_zero_variance_groups"]:
        raise RuntimeError("a completion ended early, or a group has equal rewards: the work of both sides differs")
    seconds = float(record["time/step_s"])
    generation = seconds * float(record["time/learner_idle_frac"])
    return Update(seconds, generation, seconds - generation)
