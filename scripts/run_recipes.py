"""Run the recipes of the seed documents at scale=cpu, one after another, and print one line for each.

Usage: python -m scripts.run_recipes [OVERRIDE ...]
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from grpo_gsm8k.tracking.saved_config import recipes

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "artifacts" / "recipes"
_REPORT = re.compile(r"^(\S+report\.html): ", re.MULTILINE)


def main(overrides: list[str]) -> int:
    """Run all recipes; returns the first exit code that is not 0."""
    LOGS.mkdir(parents=True, exist_ok=True)
    codes = [run(name, overrides) for name in recipes()]
    return next((code for code in codes if code), 0)


def run(name: str, overrides: list[str]) -> int:
    """Run one recipe with its output in a file, and print its minutes and its report or its error."""
    log = LOGS / f"{name}.log"
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        command = [sys.executable, str(ROOT / "cli.py"), "command=pipeline", f"recipe={name}", "scale=cpu", *overrides]
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False, cwd=ROOT).returncode
    minutes = (time.monotonic() - started) / 60
    print(f"{name:20} {minutes:4.1f} min  {result_of(log, code)}", flush=True)
    return code


def result_of(log: Path, code: int) -> str:
    """Return the report that a finished recipe wrote, or the exit code and the last error of a failed one."""
    text = log.read_text(encoding="utf-8", errors="replace")
    if code == 0:
        return str([*_REPORT.findall(text), "done, without a report"][0])
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    return f"exit code {code}: {errors[-1] if errors else 'no error message'} (output: {log})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
