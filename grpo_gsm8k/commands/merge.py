"""`command=merge`: merge a checkpoint's adapter into its base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.commands.finished_run import find_checkpoint
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.start_model import merged_folder

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config


def merge_adapter(config: Config) -> int:
    """Write the merged model as a plain Hugging Face folder, to `output` or into the run's folder."""
    run, step, trained = find_checkpoint(config)
    if not trained.learner.lora.enabled:
        raise UserError(
            f"run={config.run} was trained without an adapter: {run.checkpoints}/step_{step}/model is a plain model"
        )
    if config.output is not None and config.output.exists():
        raise UserError(f"output={config.output} already exists: name another folder")
    target = merged_folder(run, step, config.output)
    print(f"{target}: base and adapter of step {step} as one model")
    return 0
