"""`command=pipeline`: the stages of `pipeline.stages`, each as the command it is."""

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
    """Run all stages; the exit code of the first that fails ends it.

    `arguments` are the pipeline's own; those of a stage come after them and win.
    """
    shared = [argument for argument in arguments if not argument.startswith("command=")]
    for number, stage in enumerate(config.pipeline.stages, start=1):
        print(f"\n== {number}/{len(config.pipeline.stages)}: {' '.join(stage)}", flush=True)
        started = time.monotonic()
        code = _run([sys.executable, str(CLI), *shared, *stage])
        print(f"== {stage[0]}: exit code {code} after {time.monotonic() - started:.0f} s", flush=True)
        if code:
            return code
    return 0


def _run(command: Sequence[str]) -> int:
    """The stage hears of a signal too, so that it saves; its exit code is ours."""
    process = subprocess.Popen(command, process_group=0)  # else Ctrl-C would reach it twice, and twice means at once
    handlers = {
        number: signal.signal(number, lambda number, _: process.send_signal(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        return process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
