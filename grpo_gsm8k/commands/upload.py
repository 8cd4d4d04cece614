"""What `command=push` uploads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.commands.base_model import BaseOrigin
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.tracking.run_folder import RunFolder

Form = Literal["plain", "adapter", "merged"]


@dataclass(frozen=True, slots=True)
class Upload:
    """What is uploaded: the folder of a checkpoint of `run`, and the repository. `trained` is the run's configuration.

    `artifacts` is searched for evaluations; `weights` are the folders whose evaluations count as this model's.
    """

    repo_id: str
    run: RunFolder
    step: int
    trained: Config
    form: Form
    folder: Path
    origin: BaseOrigin
    artifacts: Path
    weights: list[Path]
    license: str | None
