"""Entry point of a command that `commands/child_command.py` started: `PARENT DESCRIPTOR WORDS...`."""

from __future__ import annotations

import json
import os
import signal
import sys

from grpo_gsm8k.children.parent_death import die_with
from grpo_gsm8k.command_line.entry import execute
from grpo_gsm8k.tracking import manifest


def run_job(parent: int, descriptor: int, words: list[str]) -> int:
    """Run the command, write its run folders and error to the descriptor, and return its exit code."""
    os.set_inheritable(descriptor, False)  # else the parent would also wait for workers
    die_with(parent, by=signal.SIGTERM)  # a training run then saves a checkpoint
    sys.argv = ["grpo-gsm8k", *words]  # for the manifest
    code, error = execute(words)
    with open(descriptor, "w", encoding="utf-8") as answer:
        json.dump({"runs": [str(run) for run in dict.fromkeys(manifest.STARTED)], "error": error}, answer)
    return code


if __name__ == "__main__":
    sys.exit(run_job(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
