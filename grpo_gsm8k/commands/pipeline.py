"""`command=pipeline`: run the stages of `pipeline.stages` in order, each as a command in its own process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config

CLI = Path(__file__).resolve().parents[2] / "cli.py"


def run_pipeline(config: Config, arguments: Sequence[str]) -> int:
    """Run the stages; returns 0, or the exit code of the first stage that fails.

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
        code = _run([sys.executable, str(CLI), *shared, *stage])
        print(f"== {stage[0]}: exit code {code} after {time.monotonic() - started:.0f} s", flush=True)
        if code:
            return code
    return 0


def _run(command: Sequence[str]) -> int:
    """Run a stage and return its exit code; signals are forwarded, so that it can save a checkpoint."""
    # In its own process group: Ctrl-C would otherwise reach the stage twice, which means "stop without saving".
    process = subprocess.Popen(command, process_group=0)
    handlers = {
        number: signal.signal(number, lambda number, _: process.send_signal(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        return process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
