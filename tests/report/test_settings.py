"""The settings of a single run: those that differ from the defaults, and all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grpo_gsm8k.report import settings, tables
from grpo_gsm8k.report.material import Run
from grpo_gsm8k.tracking.saved_config import compose_values


def run(config: dict[str, Any]) -> Run:
    return Run("r", Path(), str(config.get("command")), config, {}, {}, (), (), None)


def test_what_a_run_changed() -> None:
    values = compose_values(["command=policy_gradient", "learner.lr=3e-6", "data.stop=[]", "wandb.mode=offline"])
    values["actor"]["start_timeout_s"] = float(values["actor"]["start_timeout_s"])  # as a saved configuration has it
    values["prompt"]["system"] = ""
    found = {key: (value, default) for key, value, default in settings.changed(run(values))}
    assert found.keys() == {"learner.lr", "data.stop", "prompt.system"}
    assert found["learner.lr"] == ("3e-06", "1e-05")
    assert found["prompt.system"][0] == settings.EMPTY


def test_all_settings_leave_out_other_commands() -> None:
    table = tables.all_settings([run(compose_values(["command=policy_gradient"]))])
    sections = {key.partition(".")[0] for key, _ in table.rows}
    assert {"data", "model", "actor", "learner", "policy_gradient", "prompt"} <= sections
    assert not sections & {"traces", "eval", "sft", "wandb", "report"}
    assert tables.all_settings([run({}), run({})]).rows == ()


def test_an_unknown_command_has_no_defaults() -> None:
    assert settings.changed(run({"command": "unknown", "learner": {"lr": 1}})) == []
