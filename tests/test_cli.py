"""Bad configuration ends with exit code 2 and one line that names the key and the fix, before any engine starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import load_config, main, presets
from grpo_gsm8k.errors import UserError

PG = ["command=policy_gradient", "preset=cpu_demo"]


@pytest.mark.parametrize("preset", presets())
def test_every_preset_composes(preset: str) -> None:
    assert load_config(["command=policy_gradient", f"preset={preset}"]).command == "policy_gradient"


@pytest.mark.parametrize("group", ["grpo", "reinforce", "reinforce_baseline"])
def test_named_settings(group: str) -> None:
    config = load_config(["command=policy_gradient", f"policy_gradient={group}"])
    assert config.policy_gradient.group_size == 8


BAD = [
    ([*PG, "policy_gradient.grup_size=4"], "grup_size"),
    ([*PG, "+policy_gradient.grup_size=4"], "policy_gradient.grup_size: unknown key"),
    ([*PG, "+policy_gradient._target_=os.system"], "policy_gradient._target_: unknown key"),
    ([*PG, "preset=no_such"], "no_such"),
    (["preset=cpu_demo"], "command"),
    (["command=fly", "preset=cpu_demo"], "command"),
    ([*PG, "policy_gradient.episodes_per_update=100"], "episodes_per_update=100 is no multiple of group_size=8"),
    ([*PG, "policy_gradient.group_size=1"], "set group_size to 2 or more"),
    ([*PG, "policy_gradient.minibatches=100"], "lower policy_gradient.minibatches"),
    ([*PG, "policy_gradient.temperature=0"], "policy_gradient.temperature"),
    ([*PG, "+policy_gradient.rewards.beauty=0.5"], "policy_gradient.rewards.beauty: unknown reward part"),
    ([*PG, "actor.max_batched_tokens=64"], "raise actor.max_batched_tokens"),
    ([*PG, "policy_gradient.max_new_tokens=160"], "actor.max_model_len"),
    ([*PG, "actor.max_model_len=100000", "actor.max_batched_tokens=100000"], "actor.max_model_len"),
    ([*PG, "actor.max_model_len=100"], "actor.max_model_len"),
    ([*PG, "learner.device=cuda:0"], "learner.device"),
    ([*PG, "actor.device=cuda:0"], "actor.device"),
    ([*PG, "model.path=/no/such/folder"], "model.path"),
    ([*PG, "name=../../x"], "name"),
    ([*PG, "shm=/no/such/folder"], "shm"),
    ([*PG, "data=jsonl", "data.train_path=/no/file", "data.test_path=/no/file"], "/no/file"),
    ([*PG, "policy_gradient.resume_from=latest"], "resume_from"),
    ([*PG, "wandb.mode=online"], "WANDB_API_KEY"),
    ([*PG, "prompt=chat", "prompt.text=hello"], "question"),
]


@pytest.mark.parametrize(("arguments", "needle"), BAD, ids=[" ".join(b[0][2:]) or "-" for b in BAD])
def test_refused(
    arguments: list[str],
    needle: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    code = main([*arguments, f"artifacts={tmp_path / 'artifacts'}"])
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert code == 2, last
    assert last.startswith("error: ")
    assert needle in last
    assert not list(tmp_path.glob("artifacts/runs/*/logs/actor*"))  # no engine was started


def test_secrets_are_no_part_of_the_configuration() -> None:
    with pytest.raises(UserError):
        load_config([*PG, "+wandb.api_key=x"])
