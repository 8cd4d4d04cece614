"""The process of one step: run its module's `check`, and end with an exit code that tells the outcome."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.gpu_check.outcome import Figure, FigureFile, StepFailedError, StepSkippedError, formatted
from benchmarks.gpu_check.setup import Setup

PASSED, FAILED, SKIPPED = 0, 1, 3  # a crash of Python ends with 1 too, a signal with a negative code
REASON = "reason"  # the figure that holds the reason of a failure or a skip


def main() -> int:
    """Run one step in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--module", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--figures", type=Path, required=True)
    parser.add_argument("--no-engine", action="store_true")
    options = parser.parse_args()
    figures = FigureFile(options.figures)

    def record(name: str, value: Figure) -> None:
        print(f"{name}: {formatted(value)}", flush=True)
        figures.append(name, value)

    check = importlib.import_module(f"benchmarks.gpu_check.{options.module}").check
    try:
        check(Setup(options.device, options.folder, not options.no_engine), record)
    except StepFailedError as error:
        figures.append(REASON, str(error))
        return FAILED
    except StepSkippedError as error:
        figures.append(REASON, str(error))
        return SKIPPED
    return PASSED


if __name__ == "__main__":
    sys.exit(main())
