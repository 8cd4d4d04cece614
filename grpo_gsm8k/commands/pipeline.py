"""`command=pipeline`: run the stages of `pipeline.stages` in order, each as a command in its own process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from grpo_gsm8k.commands.child_command import run_command
from grpo_gsm8k.tracking import manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config


def run_pipeline(config: Config, arguments: Sequence[str]) -> int:
    """Run the stages; returns 0, or the exit code of the first stage that fails.

    Each stage gets the pipeline's `arguments`, then its own, which take precedence.
    """
    shared = [argument for argument in arguments if not argument.startswith("command=")]
    for number, stage in enumerate(config.pipeline.stages, start=1):
        print(f"\n== {number}/{len(config.pipeline.stages)}: {' '.join(stage)}", flush=True)
        started = time.monotonic()
        result = run_command([*shared, *stage])
        manifest.STARTED.extend(result.runs)
        print(f"== {stage[0]}: exit code {result.code} after {time.monotonic() - started:.0f} s", flush=True)
        if result.code:
            return result.code
    return 0
