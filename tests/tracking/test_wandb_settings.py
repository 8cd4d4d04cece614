"""Where the settings of a W&B run come from: keys, then WANDB_* variables, then defaults."""

from __future__ import annotations

import os

import pytest

from cli import load_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.tracking.wandb_settings import WandbSettings, wandb_settings

PG = ("command=policy_gradient", "preset=cpu_demo")
VARIABLES = {
    "WANDB_MODE": "disabled",
    "WANDB_PROJECT": "env-project",
    "WANDB_ENTITY": "env-team",
    "WANDB_RUN_GROUP": "env-group",
    "WANDB_TAGS": "one, two,",
    "WANDB_JOB_TYPE": "env-job",
    "WANDB_NAME": "env-name",
    "WANDB_DIR": "/env/dir",
}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


def settings(*words: str) -> WandbSettings:
    return wandb_settings(load_config([*PG, *words]))


def test_defaults() -> None:
    tags = ("policy_gradient", "grpo", "chain_sum")
    expected = WandbSettings("offline", "grpo-gsm8k", None, "grpo", "policy_gradient", tags, None, None)
    assert settings() == expected
    sft = wandb_settings(load_config(["command=sft", "preset=cpu_demo"]))
    assert (sft.group, sft.job_type, sft.tags) == ("sft", "sft", ("sft", "chain_sum"))


def test_the_environment_is_used_where_a_key_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    expected = ("off", "env-project", "env-team", "env-group", "env-job", ("one", "two"), "env-name", "/env/dir")
    assert settings() == WandbSettings(*expected)  # type: ignore[arg-type]


def test_keys_take_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    keys = ("mode=online", "project=p", "entity=e", "group=g", "tags=[]")
    found = settings(*(f"wandb.{key}" for key in keys))
    assert (found.mode, found.project, found.entity, found.group, found.tags) == ("online", "p", "e", "g", ())


def test_empty_variables_are_unset_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    default = settings()
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    assert settings() == default


@pytest.mark.parametrize(
    "option", ["grpo", "dr_grpo", "dapo", "gspo", "cispo", "ppo", "reinforce", "reinforce_baseline", "rloo"]
)
def test_the_default_group_is_the_method(option: str) -> None:
    assert settings(f"policy_gradient={option}").group == option


@pytest.mark.parametrize(
    ("text", "mode"), [("online", "online"), ("run", "online"), ("dryrun", "offline"), ("offline", "offline")]
)
def test_modes_of_the_environment(monkeypatch: pytest.MonkeyPatch, text: str, mode: str) -> None:
    monkeypatch.setenv("WANDB_MODE", text)
    assert settings().mode == mode
    assert settings("tracker=[]").mode == "off"


@pytest.mark.parametrize(
    ("name", "value", "needle"),
    [("WANDB_MODE", "shared", "WANDB_MODE=shared is not one of"), ("WANDB_TAGS", "x" * 65, "WANDB_TAGS: 'x")],
)
def test_wrong_variables_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str, needle: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=needle):
        settings()


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["tracker=[tensorboard]", "wandb.mode=online"], "has no effect with tracker="),
        (["tracker=[wandb,wandb]"], "give each tracker once"),
        (["tracker=[mlflow]"], "tracker.0: Input should be 'wandb' or 'tensorboard'"),
        (["wandb.tags=[x,'']"], "wandb.tags"),
        (["completion_tables.rows=0"], "completion_tables.rows"),
    ],
)
def test_wrong_keys_are_refused(words: list[str], needle: str) -> None:
    with pytest.raises(UserError, match=needle):
        settings(*words)
