"""What a short program such as git or nvidia-smi prints."""

from __future__ import annotations

import shutil
import subprocess

PROGRAM_TIMEOUT_S = 10.0  # nvidia-smi takes about a second; longer means that the driver hangs


def program_output(command: list[str]) -> str | None:
    """Return what a program prints; None if it is missing, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.strip()
