"""`command=pipeline`: run the stages of `pipeline.stages` in order, each as a command in its own process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from grpo_gsm8k.commands.child_command import run_command
from grpo_gsm8k.terminal.durations import duration
from grpo_gsm8k.tracking import manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config


def run_pipeline(config: Config, arguments: Sequence[str]) -> int:
    """Run the stages; returns 0, the exit code of the first stage that fails, or 130 or 143 after a signal.

    Each stage gets the pipeline's `arguments`, then its own, which take precedence. Uploading is skipped without a
    repository to upload to.
    """
    shared = [argument for argument in arguments if not argument.startswith("command=")]
    for number, stage in enumerate(config.pipeline.stages, start=1):
        print(f"\n== {number}/{len(config.pipeline.stages)}: {' '.join(stage)}", flush=True)
        if stage[0] == "command=push" and config.push.repo_id is None and not any("push.repo_id=" in s for s in stage):
            print("== skipped: push.repo_id is not set", flush=True)
            continue
        started = time.monotonic()
        result = run_command([*shared, *stage])
        manifest.STARTED.extend(result.runs)
        print(f"== {stage[0]}: exit code {result.code} after {duration(time.monotonic() - started)}", flush=True)
        if result.code:
            return result.code
        if result.interrupted is not None and number < len(config.pipeline.stages):
            return 128 + result.interrupted
    return 0
