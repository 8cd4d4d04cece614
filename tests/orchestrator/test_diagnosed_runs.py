"""A run with a bad setting ends with a diagnosis in the terminal, in summary.json and in its report."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Cli

pytestmark = pytest.mark.slow


def test_answers_that_grading_cannot_read_are_named(cli: Cli) -> None:
    done = cli.run(
        *("command=policy_gradient", "preset=cpu_demo", "actor.engine=scripted", "wandb.mode=off"),
        *("prompt.answer_format=boxed", "policy_gradient.updates=10", "policy_gradient.episodes_per_update=16"),
        *("policy_gradient.eval_limit=8", "data.train_size=64", "data.val_size=8", "data.test_size=8"),
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("warning: "))
    assert line.startswith("warning: answers never parsed: ")
    assert "set prompt.answer_format (now boxed)" in line
    (run,) = cli.runs()
    kinds = [found["kind"] for found in json.loads((run / "summary.json").read_text())["diagnoses"]]
    assert kinds[0] == "answers_never_parsed"
    assert "To do: set prompt.answer\\_format (now boxed)" in (run / "report.md").read_text()
