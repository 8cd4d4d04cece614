"""The writers that `tracker` names, each on its own thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.tracking.redaction import plain, redact
from grpo_gsm8k.tracking.tensorboard_writer import TensorboardWriter, check_tensorboard
from grpo_gsm8k.tracking.wandb_settings import wandb_settings
from grpo_gsm8k.tracking.wandb_writer import WandbWriter, check_wandb, wandb_run_id
from grpo_gsm8k.tracking.writer_thread import WriterThread

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.tracking.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class OpenWriters:
    """Started threads, and the id of the W&B run; None if W&B is off."""

    threads: tuple[WriterThread, ...]
    wandb_run_id: str | None


def check_writers(config: Config) -> None:
    """Raise UserError for a missing W&B key or package, or a wrong WANDB_* variable."""
    wandb_settings(config)
    check_wandb(config)
    if "tensorboard" in config.tracker:
        check_tensorboard()


def open_writers(config: Config, run: RunFolder) -> OpenWriters:
    """Start the configured writers. Raises UserError as `check_writers`."""
    check_writers(config)
    threads: list[WriterThread] = []
    settings, run_id = wandb_settings(config), None
    if settings.mode != "off":
        run_id = wandb_run_id(run)
        values = redact(plain(config.model_dump(mode="json")))
        threads.append(WriterThread(WandbWriter(run.path, settings, config.completion_tables, run_id, values)))
    if "tensorboard" in config.tracker:
        threads.append(WriterThread(TensorboardWriter(run.path, config.completion_tables)))
    return OpenWriters(tuple(threads), run_id)
