"""The lookup that the commands on a finished run share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.tracking import run_folder
from grpo_gsm8k.tracking.saved_config import read_config

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.tracking.run_folder import RunFolder


def find_checkpoint(config: Config) -> tuple[RunFolder, int, Config]:
    """Return the run that `run` names, the checkpoint `step` (None: the newest), and the run's configuration.

    Raises UserError if there is no such run or checkpoint.
    """
    if config.run is None:
        raise UserError(f"command={config.command} needs run=<latest, a run folder or a checkpoint folder>")
    run, newest = run_folder.find(config.artifacts, config.run)
    step = newest if config.step is None else config.step
    if step is None or step not in run_folder.checkpoint_steps(run):
        raise UserError(f"step={step}: {run.checkpoints} has {run_folder.checkpoint_steps(run) or 'no checkpoints'}")
    return run, step, read_config(run)
