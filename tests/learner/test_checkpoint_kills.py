"""A learner killed at every file operation of a save: the newest checkpoint is always valid and whole."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from grpo_gsm8k.learner import checkpoint
from grpo_gsm8k.learner.checkpoint import TrainerState
from grpo_gsm8k.learner.model import Policy
from grpo_gsm8k.learner.objective import Models
from grpo_gsm8k.learner.setup import open_optimizers
from tests.learner.conftest import small_config

pytestmark = pytest.mark.slow
STATE = TrainerState(step=1, pending_validations=(), accuracy={}, wandb_run_id=None, seed=0)
# Operations that Python reports before they happen; those of safetensors' Rust code lie between them.
OPERATIONS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "shutil.rmtree"}


def kill_at(operation: int, folder: Path) -> None:
    """End this process at its `operation`-th file operation below `folder`, from 0."""
    seen = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in OPERATIONS and str(folder) in str(arguments[0]):
            if seen == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(count)


def test_a_kill_at_every_file_operation(policy: Policy, random_model: Path, tmp_path: Path) -> None:
    models = Models(policy, None, None)
    optimizers = open_optimizers(models, small_config().learner)
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    checkpoint.save(tmp_path, STATE, models, optimizers, tokenizer)
    newest = []
    for operation in range(1000):
        shutil.rmtree(tmp_path / "step_2", ignore_errors=True)
        child = os.fork()
        if child == 0:
            kill_at(operation, tmp_path)
            checkpoint.save(tmp_path, replace(STATE, step=2), models, optimizers, tokenizer)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found = checkpoint.newest_valid(tmp_path)
        assert found is not None
        newest.append(found[1].step)
        if os.waitstatus_to_exitcode(status) == 0:
            break
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL  # the fault fired
        checkpoint.remove_leftovers(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} <= {"step_1", "step_2"}
    assert len(newest) > 20
    assert newest == sorted(newest)  # step 1 until the rename, step 2 from then on
    assert newest[-1] == 2
