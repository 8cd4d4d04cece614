"""The examples of docs/command_line.md: a SLURM job array, and runs submitted to an executor."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest

from grpo_gsm8k.command_line.arguments import parse_arguments
from grpo_gsm8k.command_line.sweep_plan import plan_sweep
from tests.conftest import REPO
from tests.docs.pages import blocks

BATCH = REPO / "examples" / "sweep.sbatch"


def test_the_page_shows_the_batch_script() -> None:
    assert BATCH.read_text() in [block.text for block in blocks(REPO / "docs" / "command_line.md")]
    assert len(BATCH.read_text().splitlines()) <= 15


def test_each_task_of_the_array_is_one_job(tmp_path: Path) -> None:
    """The script runs with a `python` that prints its arguments; the planner is the one of the sweep."""
    activate = tmp_path / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text("python() { :; }; exec() { shift 2; printf '%s\\n' \"$@\"; }\n")
    first, last = map(int, re.search(r"--array=(\d+)-(\d+)", BATCH.read_text()).groups())  # type: ignore[union-attr]
    seen = set()
    for task in range(first, last + 1):
        slurm = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_JOB_ID": "77"}
        done = subprocess.run(
            ["bash", str(BATCH), "name=mine"], cwd=tmp_path, env={**os.environ, **slurm}, capture_output=True, text=True
        )
        given = parse_arguments(done.stdout.splitlines())
        assert (given.multirun, given.job) == (True, task)
        seen.add(given.words)
    (words,) = seen  # the same sweep in every task
    plan = plan_sweep(words, "unused")
    assert plan.folder == Path("artifacts/runs/sweeps/slurm_77")
    assert {config.name for config in plan.configs} == {"mine"}
    assert len({job.swept for job in plan.jobs}) == len(plan.jobs) == last - first + 1 == 6


class Executor:
    """An executor that only records what is submitted, as a cluster's would be used."""

    def __init__(self) -> None:
        self.submitted: list[tuple[object, list[str]]] = []

    def submit(self, function: object, words: list[str]) -> Future[Path]:
        self.submitted.append((function, words))
        future: Future[Path] = Future()
        future.set_result(Path(words[-1]))
        return future


def test_runs_are_submitted_in_order() -> None:
    from examples.submit_runs import submit_runs
    from grpo_gsm8k import train

    executor = Executor()
    assert submit_runs(executor, "12", ["preset=cpu_demo"]) == [Path("name=seed_1"), Path("name=seed_2")]
    assert executor.submitted[1] == (train, ["preset=cpu_demo", "seed=2", "name=seed_2"])


@pytest.mark.slow
def test_a_submitted_run(tmp_path: Path) -> None:
    words = ["preset=cpu_demo", "actor.engine=scripted", "policy_gradient.updates=1", "data.train_size=40"]
    words += ["data.val_size=8", "data.test_size=4", "policy_gradient.episodes_per_update=16", "wandb.mode=off"]
    done = subprocess.run(
        [sys.executable, str(REPO / "examples" / "submit_runs.py"), "3", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    assert folder.parent == tmp_path / "artifacts" / "runs"
    assert folder.name.endswith("_seed_3")
    assert (folder / "summary.json").is_file()
