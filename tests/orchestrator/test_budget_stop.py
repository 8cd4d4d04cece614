"""A run whose budget is used up saves a checkpoint, gives the reason, and can be resumed."""

from __future__ import annotations

import json

import pytest

from grpo_gsm8k.tracking.run_folder import RunFolder, checkpoint_steps
from tests.conftest import Cli
from tests.orchestrator.test_runs import SCRIPTED, events_of, steps_of

pytestmark = pytest.mark.slow


def test_stops_after_a_checkpoint_and_resumes(cli: Cli) -> None:
    """A budget of 0.01 cents is used up before the first update is done."""
    done = cli.run(*SCRIPTED, "budget.max_usd=0.0001", "budget.usd_per_hour=1")
    assert done.returncode == 4, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("stopped: budget")
    run = cli.runs()[-1]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "stopped: budget"
    assert summary["steps"] < summary["total_steps"]
    assert summary["outcome"]["usd"] >= 0.0001
    assert summary["estimate"]["initial"]["updates"] == summary["total_steps"]
    assert checkpoint_steps(RunFolder(run))[-1] == summary["steps"]
    assert len(events_of(run, "over_budget")) == 1

    resumed = cli.run(*SCRIPTED, "policy_gradient.resume_from=latest")
    assert resumed.returncode == 0, resumed.stderr
    assert cli.runs() == [run]
    assert steps_of(run) == list(range(1, summary["total_steps"] + 1))
    assert json.loads((run / "summary.json").read_text())["status"] == "done"


def test_a_sufficient_budget_changes_nothing(cli: Cli) -> None:
    done = cli.run(*SCRIPTED, "policy_gradient.updates=11", "policy_gradient.eval_every=11", "budget.max_hours=5")
    assert done.returncode == 0, done.stderr
    assert any(line.startswith("preflight: learner ") for line in done.stdout.splitlines())
    assert "measured: " in done.stdout
    summary = json.loads((cli.runs()[-1] / "summary.json").read_text())
    assert summary["estimate"]["refined"]["measured_updates"] == 10
    assert summary["outcome"]["updates"] == 11
    assert summary["outcome"]["usd"] is None
    assert summary["outcome"]["hours"] > 0
