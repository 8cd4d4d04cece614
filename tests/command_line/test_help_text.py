"""`--help` names every command on one line; `command=X --help` shows the keys of X with their comments."""

from __future__ import annotations

import pytest

from cli import COMMANDS, CONF, main
from grpo_gsm8k.command_line.entry import main as entry_main
from grpo_gsm8k.command_line.key_reference import settings
from grpo_gsm8k.config import Config

CHOICES = {"command", "recipe", "scale"}


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def output(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(words) == 0
    return capsys.readouterr().out.splitlines()


SCHEMA = Config.model_json_schema()
KEYS = set(settings(SCHEMA, SCHEMA))


def keys_below(parts: tuple[str, ...]) -> set[str]:
    return {key for key in KEYS if any(key == p or key.startswith(f"{p}.") for p in parts)}


def test_every_command_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "--help")
    for name, command in COMMANDS.items():
        assert [line.split(maxsplit=1)[1] for line in lines if line.split()[:1] == [name]] == [command.help]
    assert max(len(line) for line in lines if str(CONF) not in line) <= 80
    for option in ("--help", "--cfg", "--package", "--multirun", "--job", "--completion"):
        assert any(option in line for line in lines)


def test_without_words_it_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry_main([]) == 2
    assert "commands:" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_keys_of_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, f"command={name}", "--help")
    shown = {line.strip().partition("=")[0] for line in lines if line.startswith("  ") and line[2] != " "}
    assert keys_below(COMMANDS[name].keys) <= shown
    assert all(len(line) <= 80 for line in lines)


def test_every_key_belongs_to_a_command() -> None:
    parts = tuple(part for command in COMMANDS.values() for part in command.keys)
    assert KEYS - keys_below(parts) == CHOICES
    assert all(keys_below((part,)) for part in parts)


def test_values_are_those_of_the_words_and_comments_those_of_conf(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "command=policy_gradient", "preset=cpu_demo", "seed=7", "-h")
    assert "  seed=7" in lines
    assert "  learner.device=cpu" in lines
    at = lines.index("  shm=/dev/shm")
    assert lines[at + 1] == "      path; a tmpfs with room for policy_gradient.max_staleness + 2 weight"
    assert any(line.startswith("  recipe=dpo|gemma2b_comparison|") for line in lines)


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["command=fly", "--help"], "command=fly is unknown"),
        (["preset=cpu_demo", "--help"], "command is missing"),
        (["command=data", "sed=1", "--help"], "did you mean seed?"),
        (["command=data", "--hlp"], "did you mean --help?"),
        (["command=data", "--help", "-m"], "exclude each other"),
        (["command=data", "--cfg", "hydra"], "invalid choice: 'hydra'"),
        (["command=data", "--job", "1"], "--job has no effect without --multirun"),
        (["command=data", "-p", "data"], "--package has no effect without --cfg job"),
        (["--completion", "fish"], "invalid choice: 'fish'"),
    ],
)
def test_refused(words: list[str], needle: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert needle in line
