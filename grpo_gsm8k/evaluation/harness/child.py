"""Entry point of the process that runs lm-eval on one checkpoint during a training run.

`python -m grpo_gsm8k.evaluation.harness.child CONFIG MODEL NAME FOLDER CACHE`: the run's configuration as JSON with the
suite under `eval`, the model folder, its reported name, the output folder, and the size of the engine's KV cache on a
GPU in bytes (0 on a CPU). `scores.json` is written last.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.config import parse_config
from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.evaluation.harness.run_harness import run_harness
from grpo_gsm8k.evaluation.harness.tasks import task_list, task_manager
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.start_model import start_folder
from grpo_gsm8k.tracking.run_folder import RunFolder

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config


def main(config_file: Path, model: Path, name: str, folder: Path, kv_cache_bytes: int | None) -> int:
    """Run the suite; returns the exit code: 2 for a UserError such as an unknown task, 1 for other LabErrors."""
    config = parse_config(json.loads(config_file.read_text(encoding="utf-8")))
    run = RunFolder(folder)
    run.logs.mkdir(parents=True, exist_ok=True)
    try:
        tasks = task_list(config.eval)
        manager = task_manager(tasks)
        models = {name: _full_model(config, model, folder)}
        scores = run_harness(config, tasks, manager, models, run, kv_cache_bytes)
    except LabError as error:
        print(f"error: {error}", flush=True)
        return 2 if isinstance(error, UserError) else 1
    write_atomically(folder / "scores.json", json.dumps([asdict(score) for score in scores], indent=2) + "\n")
    return 0


def _full_model(config: Config, model: Path, folder: Path) -> Path:
    """Return the folder of the checkpoint's model; a LoRA adapter is merged into its base first.

    It is merged on the CPU: beside the training on the learner's GPU there is no room for a second base model.
    """
    if not (model / "adapter_config.json").is_file():
        return model
    from grpo_gsm8k.learner.merging import write_merged

    merged = folder / "merged"
    merged.mkdir(exist_ok=True)
    write_merged(config.learner.model_copy(update={"device": "cpu"}), start_folder(config), model, merged)
    return merged


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]) or None))
