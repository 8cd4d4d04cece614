"""Replay of a recorded update, on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from grpo_gsm8k.learner import checkpoint, update_record
from grpo_gsm8k.learner.experience import prepare
from grpo_gsm8k.learner.setup import open_models, open_optimizers
from grpo_gsm8k.learner.update import update_policy

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.update_record import UpdateResult


def replay(
    config: Config, run: Path, step: int, model_folder: Path, critic_folder: Path, teacher_folder: Path | None = None
) -> tuple[UpdateResult, UpdateResult]:
    """Return the recorded result of update `step` and the one computed now; `config` is the run's own."""
    record, before = update_record.load(run, step)
    torch.set_num_threads(config.learner.threads)
    if config.learner.device != "cpu":
        torch.cuda.set_device(config.learner.device)  # whose random state the record restores
    if config.learner.deterministic:
        torch.use_deterministic_algorithms(True)
    state = checkpoint.read_state(before)
    models = open_models(config, model_folder, critic_folder, before, teacher_folder)
    optimizers = open_optimizers(models, config.learner)
    checkpoint.restore(before, models, optimizers)
    assert state.step == record.version
    experience = prepare(record.samples, record.rewards_GN, models, config, record.rates.kl_coef, _ignore)
    stats = update_policy(models, optimizers, experience.groups, config, record.version, record.rates, _ignore)
    return record.result, update_record.UpdateResult(*stats.loss_and_grad_norm())


def _ignore() -> None:
    """Stand in for the heartbeat: a replay is not supervised."""
