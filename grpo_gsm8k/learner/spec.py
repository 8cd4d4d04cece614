"""Start parameters of a learner process; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.data.prepare import DataFolder


@dataclass(frozen=True, slots=True)
class LearnerSpec:
    """Everything a learner process needs; without `resume_step` it continues from the newest valid checkpoint."""

    config: Config
    model_folder: Path
    critic_folder: Path  # the model of a separate critic
    data: DataFolder
    run_folder: Path
    weights_root: Path
    incarnation: int
    resume_step: int | None
    wandb_run_id: str | None
    teacher_folder: Path | None = None  # the model to distill from
