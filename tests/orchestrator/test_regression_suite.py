"""lm-eval during a training run: baseline, every Nth version, alarm, stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Cli, read_jsonl

pytestmark = pytest.mark.slow


def arguments(tasks: Path, *names: str) -> list[str]:
    files = ",".join(str(tasks / f"{name}.yaml") for name in names)
    return [
        *(
            "command=policy_gradient",
            "preset=cpu_demo",
            "wandb.mode=off",
            f"policy_gradient.regression_suite.tasks=[{files}]",
        ),
        *("policy_gradient.regression_suite.limit=10", "policy_gradient.regression_suite.shots=null"),
        *("data.train_size=64", "data.val_size=8", "data.test_size=4", "policy_gradient.episodes_per_update=16"),
    ]


def events(run: Path, kind: str) -> list[dict[str, object]]:
    return [event for event in read_jsonl(run / "events.jsonl") if event["kind"] == kind]


def test_versions_are_scored_during_training(tasks: Path, cli: Cli) -> None:
    done = cli.run(
        *arguments(tasks, "sums_choice", "sums_text"),
        *("policy_gradient.updates=6", "policy_gradient.regression_suite.every=3", "learner.lr=0"),
    )
    assert done.returncode == 0, done.stderr
    (run,) = cli.runs()
    found = json.loads((run / "regression.json").read_text())
    versions = list(dict.fromkeys(score["model"] for score in found["scores"]))
    skipped = {f"version {event['version']}" for event in events(run, "regression_suite_skipped")}
    assert versions[0] == "version 0"
    assert versions[-1] == "version 6"
    assert {*versions, *skipped} == {"version 0", "version 3", "version 6"}
    assert all(change["difference"] == 0 for change in found["changes"])  # the learning rate is 0
    assert len(found["changes"]) == 2 * (len(versions) - 1)
    assert not events(run, "regression")
    started = next(event["time"] for event in events(run, "regression_suite_started"))
    ended = next(event["time"] for event in events(run, "regression_suite"))
    steps = [event["time"] for event in read_jsonl(run / "events.jsonl") if event["kind"] == "checkpoint"]
    assert any(started < step < ended for step in steps), "training waited for the suite"
    assert json.loads((run / "summary.json").read_text())["lm_eval"] == found
    assert "version 6" in (run / "report.md").read_text()
    assert not list(run.glob("regression/step_*/model"))


def test_a_ruined_model_raises_an_alarm_and_ends_the_run(tasks: Path, cli: Cli) -> None:
    done = cli.run(
        *arguments(tasks, "sums_worked"),
        *("policy_gradient.updates=400", "policy_gradient.regression_suite.every=2", "learner.lr=0.05"),
        *("policy_gradient.regression_suite.stop=true", "actor.canary_tolerance=1"),
    )
    assert done.returncode == 3, done.stderr
    (run,) = cli.runs()
    alarm = events(run, "regression")[0]
    assert "REGRESSION in version" in done.stdout
    assert json.loads((run / "summary.json").read_text())["status"] == "stopped early"
    last = json.loads((run / "summary.json").read_text())["steps"]
    assert isinstance(alarm["version"], int)
    assert alarm["version"] <= last < 400
    assert (run / "checkpoints" / f"step_{last}").is_dir()


def test_an_unknown_task_ends_the_run_at_once(cli: Cli) -> None:
    done = cli.run(
        *("command=policy_gradient", "preset=cpu_demo", "wandb.mode=off"),
        "policy_gradient.regression_suite.tasks=[surely_not]",
    )
    assert done.returncode == 2
    assert "regression_suite: " in done.stderr.strip().splitlines()[-1]
    assert "surely_not" in done.stderr.strip().splitlines()[-1]
