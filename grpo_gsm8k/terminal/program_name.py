"""How this program was called, for commands that a user can type."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

VARIABLE = "GRPO_GSM8K_PROGRAM"  # set for commands that run in a process of their own
INSTALLED = "grpo-gsm8k"
SCRIPT = "cli.py"
ROOT = Path(__file__).resolve().parents[2]


def program() -> str:
    """Return the program as it was called, quoted for a shell: `python cli.py` or `grpo-gsm8k`."""
    if given := os.environ.get(VARIABLE):
        return given
    called = sys.argv[0]
    if Path(called).name == SCRIPT:
        return shlex.join([_python(), called])
    if Path(called).name == INSTALLED:
        found = shutil.which(INSTALLED)
        return INSTALLED if "/" not in called or _same_file(found, called) else shlex.quote(called)
    # A notebook, or another program that calls `train`.
    return shlex.join(["python", str(ROOT / SCRIPT)]) if (ROOT / SCRIPT).is_file() else INSTALLED


def _python() -> str:
    """Return the interpreter as typed, such as `python` or `.venv/bin/python`."""
    typed = sys.orig_argv[0] if sys.orig_argv else ""
    return typed if "python" in Path(typed).name else "python"


def _same_file(found: str | None, called: str) -> bool:
    return found is not None and Path(found).exists() and Path(called).exists() and Path(found).samefile(called)
