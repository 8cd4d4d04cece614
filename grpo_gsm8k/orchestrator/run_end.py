"""What the terminal shows when a training run ends: results, paths, next commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.diagnoses.diagnose import warning_lines
from grpo_gsm8k.files.json_lines import read_json
from grpo_gsm8k.start_model import best_step
from grpo_gsm8k.terminal.end_block import print_end
from grpo_gsm8k.terminal.next_commands import FinishedTraining
from grpo_gsm8k.terminal.program_name import program
from grpo_gsm8k.tracking import manifest, run_folder

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.tracking.run_folder import RunFolder

DEFAULT_ARTIFACTS = Path("artifacts")


def show_end(config: Config, run: RunFolder, report: Path | None) -> None:
    """Print the end of a run; nothing if its summary could not be written."""
    if not run.summary_json.is_file():
        return
    summary = read_json(run.summary_json)
    print_end(summary, finished_training(config, run, summary["status"]), report, program(), warning_lines(summary))


def finished_training(config: Config, run: RunFolder, status: str) -> FinishedTraining:
    """Return what the next commands depend on."""
    steps = run_folder.checkpoint_steps(run)
    checkpoints = run.checkpoints.absolute()
    return FinishedTraining(
        command=config.command,
        folder=run.path.absolute(),
        checkpoint=checkpoints / f"step_{best_step(run)}" if steps else None,
        newest=checkpoints / f"step_{max(steps)}" if steps else None,
        complete=status == "done",
        failed=status == "failed",
        adapter=config.learner.lora.enabled,
        arguments=tuple(manifest.earlier_arguments(run) or ()),
        artifacts=None if config.artifacts == DEFAULT_ARTIFACTS else config.artifacts,
    )
