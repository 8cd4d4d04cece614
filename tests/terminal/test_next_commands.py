"""Commands at the end of a run: read back by a shell and by Hydra, they say what was meant."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from grpo_gsm8k.terminal import program_name
from grpo_gsm8k.terminal.next_commands import (
    FinishedTraining,
    evaluation_arguments,
    fold,
    next_commands,
    override,
    resumed_evaluation,
)

RUN = Path("/data/artifacts/runs/20260101-000000_demo")
DONE = FinishedTraining(
    command="policy_gradient",
    folder=RUN,
    checkpoint=RUN / "checkpoints/step_30",
    newest=RUN / "checkpoints/step_30",
    complete=True,
    failed=False,
    adapter=False,
)


def read(command: str) -> dict[str, object]:
    """The keys and values of a command, as the shell and Hydra read them."""
    words = shlex.split(command)[len(shlex.split("python cli.py")) :]
    parsed = OverridesParser.create().parse_overrides(words)
    return {each.key_or_group: each.value() for each in parsed}


def words_of(command: str) -> list[str]:
    """The words of a command as a shell passes them on."""
    echoed = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    return echoed.stdout.splitlines()


def test_a_finished_run_is_evaluated_reported_and_pushed() -> None:
    commands = dict(next_commands(DONE, "python cli.py"))
    assert list(commands) == ["eval", "report", "push"]
    assert read(commands["eval"]) == {"command": "eval", "eval.model_path": str(DONE.checkpoint)}
    assert read(commands["report"]) == {"command": "report", "report.runs": [str(RUN)]}
    assert read(commands["push"]) == {"command": "push", "run": str(RUN), "push.repo_id": "OWNER/NAME"}


def test_a_stopped_run_is_resumed_first_and_an_adapter_is_merged() -> None:
    run = replace(DONE, complete=False, adapter=True, checkpoint=RUN / "checkpoints/step_10")
    commands = dict(next_commands(run, "grpo-gsm8k"))
    assert list(commands) == ["resume", "eval", "report", "merge", "push"]
    resume = f"grpo-gsm8k command=policy_gradient policy_gradient.resume_from={RUN}"
    assert commands["resume"] == resume
    assert commands["merge"] == f"grpo-gsm8k command=merge run={RUN}/checkpoints/step_10"  # the best, not the newest


def test_without_a_checkpoint_only_an_interrupted_run_has_a_next_command() -> None:
    none = replace(DONE, checkpoint=None, newest=None, complete=False)
    assert [label for label, _ in next_commands(none, "x")] == ["resume"]
    assert next_commands(replace(none, failed=True), "x") == []


@pytest.mark.parametrize(
    "name", ["my runs/a b", "it's", "a,b", "[x]", "a=b", "{c}", 'q"q', "1", "null", "a:b", "~x", "ü", "a(b)", "x\\y"]
)
def test_a_path_with_special_characters_arrives_unchanged(name: str) -> None:
    folder = Path("/tmp") / name / "run"
    run = replace(DONE, folder=folder, checkpoint=folder / "checkpoints/step_1", artifacts=Path("/tmp") / name)
    for _, command in next_commands(run, "python cli.py"):
        values = read(command)
        assert values["artifacts"] == f"/tmp/{name}"
        assert str(folder) in str(values.get("run") or values.get("eval.model_path") or values["report.runs"][0])  # type: ignore[index]
        assert words_of(command) == shlex.split(command)
    assert shlex.split(override("run", "1")) == ["run='1'"]  # a name, not a number


def test_an_evaluation_repeats_the_arguments_that_it_reads() -> None:
    words = ["command=policy_gradient", "preset=cpu_demo", "prompt=base", "policy_gradient.updates=3", "seed=1"]
    words += ["prompt.instruction=Solve it. End with ####", "learner.lr=1", "wandb.project=x", "model.token=***"]
    words += ["prompt=qwen_cot", "+data.extra=1", "name=x"]
    kept = ["preset=cpu_demo", "seed=1", "prompt.instruction=Solve it. End with ####", "prompt=qwen_cot"]
    assert evaluation_arguments(words) == [*kept, "+data.extra=1"]
    command = dict(next_commands(replace(DONE, arguments=tuple(words)), "python cli.py"))["eval"]
    assert "prompt.instruction=Solve it. End with ####" in shlex.split(command)


def test_an_interrupted_evaluation_is_continued_with_its_own_arguments() -> None:
    words = ["command=eval", "prompt.instruction=Solve it", "eval.model_path=[a,b]", "eval.resume_from=latest"]
    again = resumed_evaluation(words, Path("/tmp/my runs/x"), "python cli.py")
    assert shlex.split(again)[2:] == [*words[:3], "eval.resume_from=/tmp/my runs/x"]
    assert read(again)["eval.resume_from"] == "/tmp/my runs/x"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_folded_commands_are_the_same_commands(width: int) -> None:
    run = replace(DONE, folder=Path("/tmp/my runs/a"), checkpoint=Path("/tmp/my runs/a/checkpoints/step_1"))
    for _, command in next_commands(run, "python cli.py"):
        lines = fold(command, width, "  ")
        assert words_of("\n".join(lines)) == shlex.split(command)
        assert all(len(line) <= width or len(line.split()) <= 4 for line in lines)
        assert all(line.endswith(" \\") for line in lines[:-1])


def called_as(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.delenv(program_name.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "orig_argv", list(words))
    monkeypatch.setattr(sys, "argv", [words[-1]])
    return program_name.program()


def test_the_program_is_named_as_it_was_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert called_as(monkeypatch, "python", "cli.py") == "python cli.py"
    assert called_as(monkeypatch, ".venv/bin/python3", "../my lab/cli.py") == ".venv/bin/python3 '../my lab/cli.py'"
    assert called_as(monkeypatch, "python", "grpo-gsm8k") == "grpo-gsm8k"
    script = tmp_path / "grpo-gsm8k"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    assert called_as(monkeypatch, "/usr/bin/python", str(script)) == str(script)  # not on the PATH
    monkeypatch.setenv("PATH", str(tmp_path))
    assert called_as(monkeypatch, "/usr/bin/python", str(script)) == "grpo-gsm8k"
    assert called_as(monkeypatch, "python", "/x/ipykernel_launcher.py").endswith("/cli.py")
    monkeypatch.setenv(program_name.VARIABLE, "python cli.py")  # a stage of a pipeline
    assert program_name.program() == "python cli.py"
