"""Saving a checkpoint on a full disk: a typed error with the bytes, and nothing half-written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer

from grpo_gsm8k.data.difficulty import Solved
from grpo_gsm8k.errors import CheckpointError, DiskFullError, UserError
from grpo_gsm8k.files import checksums
from grpo_gsm8k.learner import checkpoint
from grpo_gsm8k.learner.checkpoint import TrainerState
from grpo_gsm8k.learner.critic import build_critic
from grpo_gsm8k.learner.model import Policy
from grpo_gsm8k.learner.objective import Models
from grpo_gsm8k.learner.prompt_order import PromptPlan
from grpo_gsm8k.learner.setup import open_optimizers
from tests.conftest import file_system
from tests.learner.conftest import small_config

STATE = TrainerState(step=3, pending_validations=(), accuracy={}, wandb_run_id=None, seed=0)


def save(checkpoints: Path, policy: Policy, folder: Path) -> Path:
    models = Models(policy, None, None)
    optimizers = open_optimizers(models, small_config().learner)
    return checkpoint.save(checkpoints, STATE, models, optimizers, AutoTokenizer.from_pretrained(folder))


def test_the_state_survives_json(policy: Policy, random_model: Path, tmp_path: Path) -> None:
    """With what the difficulty sampler adds."""
    plan = PromptPlan(7, {3: (5, 6)}, {3: (4,)}, {"a": (0.1 + 0.2, 8.0)}, {2: (Solved("b", 1, 8),)})
    models = Models(policy, None, None)
    optimizers = open_optimizers(models, small_config().learner)
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    state = replace(STATE, plan=plan, accuracy={0: 0.5})
    assert checkpoint.read_state(checkpoint.save(tmp_path, state, models, optimizers, tokenizer)) == state


def test_the_plan_of_an_earlier_version_has_cursor_and_positions_only(tmp_path: Path) -> None:
    values = {**asdict(STATE), "plan": {"cursor": 7, "positions": {"3": [5, 6]}}}
    (tmp_path / "state.json").write_text(json.dumps(values))
    checksums.write_manifest(tmp_path, {})
    assert checkpoint.read_state(tmp_path).plan == PromptPlan(7, {3: (5, 6)})


@pytest.mark.parametrize(("keep", "left"), [(1, {2, 9, 10}), (3, {2, 8, 9, 10}), ("all", {2, 6, 8, 9, 10})])
def test_checkpoints_that_are_kept(tmp_path: Path, keep: int | Literal["all"], left: set[int]) -> None:
    for step in (2, 6, 8, 9, 10):
        (tmp_path / f"step_{step}").mkdir()
    checkpoint.prune(tmp_path, keep, {2: 0.9, 6: 0.5}, (9,))  # the best one, and one being validated, always stay
    assert {int(path.name[5:]) for path in tmp_path.iterdir()} == left


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with file_system(tmp_path / "disk", "64k") as folder:
        yield folder


def test_a_full_disk_is_named_with_its_bytes(policy: Policy, random_model: Path, small_disk: Path) -> None:
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    with pytest.raises(DiskFullError, match=rf"step_3 needs \d{{5,}} bytes and {free} are free"):
        save(small_disk, policy, random_model)
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_a_failed_write_leaves_nothing(
    policy: Policy, random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    before = save(tmp_path / "good", policy, random_model)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(DiskFullError, match=r"step_3 was not written: No space left on device, \d+ bytes"):
        save(tmp_path / "good", policy, random_model)
    assert list(before.parent.iterdir()) == [before]
    assert checkpoint.read_state(before).step == 3


def test_a_planted_link_is_not_written_through(policy: Policy, random_model: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "checkpoints").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="checkpoints is a link"):
        save(tmp_path / "checkpoints", policy, random_model)
    assert list((tmp_path / "outside").iterdir()) == []


def test_folders_of_other_names_are_left_alone(tmp_path: Path) -> None:
    for name in ("step_4_backup", "step_x", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / ".step_5.0a1b2c3d.tmp").mkdir()
    assert checkpoint.newest_valid(tmp_path) is None
    checkpoint.prune(tmp_path, 1, {}, ())
    checkpoint.set_aside_later(tmp_path, 1)
    checkpoint.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"step_4_backup", "step_x", "notes"}


def test_a_critic_that_is_not_finite_is_not_saved(policy: Policy, random_model: Path, tmp_path: Path) -> None:
    config = small_config("policy_gradient=ppo", "policy_gradient.critic.kind=separate")
    critic = build_critic(config, policy, random_model)
    assert critic is not None
    with torch.no_grad():
        critic.named_parameters()[0][1].fill_(torch.nan)
    models = Models(policy, None, critic)
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    with pytest.raises(CheckpointError, match="step 3 is not saved: critic: "):
        checkpoint.save(tmp_path, STATE, models, open_optimizers(models, config.learner), tokenizer)
    assert list(tmp_path.iterdir()) == []
