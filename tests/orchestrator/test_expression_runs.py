"""Runs whose answers are graded as expressions, in child processes of the learner and of an evaluation."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.conftest import Cli, read_jsonl
from tests.orchestrator.test_runs import SYNC, events_of, finish, metrics_of, pid_of, run_of, steps_of, wait_for

pytestmark = pytest.mark.slow
EXPRESSIONS = "prompt.answer_kind=expression"
SHORT = (*SYNC, "policy_gradient.updates=3", "policy_gradient.eval_every=3", "policy_gradient.save_every=1")


def graders_of(pid: int) -> list[psutil.Process]:
    """The children of a process that grade expressions."""
    children = psutil.Process(pid).children() if psutil.pid_exists(pid) else []
    return [child for child in children if "grpo_gsm8k.grading.expression_child" in child.cmdline()]


def is_running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_sums_are_graded_as_expressions_as_they_are_as_numbers(cli: Cli, tmp_path: Path) -> None:
    """The learner is killed once; neither its graders nor those of its successor outlive it."""
    plain = Cli(tmp_path / "plain")
    assert plain.run(*SHORT).returncode == 0
    process = cli.start(*SHORT, EXPRESSIONS)
    run = run_of(cli, process)
    wait_for(process, lambda: 1 in steps_of(run) and (run / "checkpoints/step_1").is_dir())
    learner = pid_of(run, "learner")
    graders = graders_of(learner)
    assert graders
    os.kill(learner, signal.SIGKILL)
    psutil.wait_procs(graders, timeout=10)
    assert not any(map(is_running, graders))
    wait_for(process, lambda: pid_of(run, "learner") != learner and bool(graders_of(pid_of(run, "learner"))))
    graders = graders_of(pid_of(run, "learner"))
    finish(process)
    assert len(events_of(run, "learner_restarted")) == 1
    assert not any(map(is_running, graders))
    found = metrics_of(run)
    assert [record.pop("rollout/grading_failed", None) for record in found] == [0.0, 0.0, 0.0, None, None]
    assert found == metrics_of(plain.runs()[-1])


def test_an_evaluation_is_graded_as_expressions(cli: Cli) -> None:
    arguments = ("command=eval", "preset=cpu_demo", "eval.limit=24", "eval.temperatures=[0.7]", "eval.samples=4")
    assert cli.run(*arguments).returncode == 0
    # Gold answers are prepared by kind, so each kind has its own folder of data.
    assert cli.run(*arguments, EXPRESSIONS, "data.folder=sums_as_expressions").returncode == 0
    number, expression = cli.runs()
    one, other = (json.loads((run / "summary.json").read_text())["results"][0] for run in (number, expression))
    for key in ("accuracy", "format_error_frac", "pass_at", "majority_at", "agreement"):
        assert one[key] == other[key], key
    kinds = [[line["kind"] for line in read_jsonl(run / "predictions.jsonl")] for run in (number, expression)]
    assert kinds[0] == kinds[1]
    assert len(set(kinds[0])) > 1
