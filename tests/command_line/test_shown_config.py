"""`--cfg job` prints the configuration that a run would have, and starts and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cli import load_config, main
from grpo_gsm8k.tracking.redaction import plain

PG = ["command=policy_gradient", "preset=cpu_demo"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "words",
    [PG, ["command=data"], ["command=pipeline", "recipe=turkish_grpo_lora", "scale=cpu"], [*PG, "policy_gradient=ppo"]],
    ids=" ".join,
)
def test_it_is_the_configuration(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown == plain(load_config(words).model_dump(mode="json"))
    assert list(tmp_path.iterdir()) == []


def test_what_it_prints_composes_to_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PG, "learner.lr=1e-3", "--cfg=job", "--package=learner"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# @package learner\n")
    section = yaml.safe_load(text)
    assert section["lr"] == 1e-3
    words = [f"learner.{key}={'null' if value is None else value}" for key, value in section.items() if key != "lora"]
    assert load_config([*PG, *words]).learner == load_config([*PG, "learner.lr=1e-3"]).learner


def test_a_section_within_a_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PG, "-c", "job", "-p", "learner.lora"]) == 0
    assert "rank" in yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["seed=x"], "seed: Input should be a valid integer"),
        (["preset=null"], "give preset one name"),
        (["policy_gradient.group_size=1"], "policy_gradient.group_size"),
        (["+policy_gradient.rewards.beauty=1"], "beauty"),
        (["seed=1,2"], "-m"),
        (["-p", "leaner"], "--package leaner: unknown key; did you mean learner"),
        (["-p", "learner.lr"], "is a key, not a section"),
        (["-p", ""], "--package"),
    ],
)
def test_refused(words: list[str], needle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PG, "--cfg", "job", *words]) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert needle in line
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_secrets_are_hidden(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "very-secret-value")
    words = ["prompt.text='very-secret-value {question}'", "traces.base_url=https://user:password@host/v1"]
    assert main([*PG, *words, "--cfg", "job"]) == 0
    out = capsys.readouterr().out
    assert "very-secret-value" not in out
    assert "user:password" not in out
    assert "***" in out
