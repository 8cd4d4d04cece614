"""Runs each step in a child process with a time limit, so that a crash fails one step and the others still run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.gpu_check.child import REASON, SKIPPED
from benchmarks.gpu_check.outcome import Figure, FigureFile, Outcome, Status, formatted
from benchmarks.gpu_check.setup import REPO, step_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.gpu_check.steps import Step

TOTAL_S = 600.0  # the whole check: what a rented machine may cost before the first run
SHORTEST_S = 10.0  # a step is not started with less time left than its imports take


def run_steps(
    steps: Sequence[Step], device: str, engine: bool, folder: Path, total_s: float = TOTAL_S
) -> list[Outcome]:
    """Run the steps one after the other, print each outcome, and return all.

    `engine` False: steps that need vLLM are skipped. A step that has not ended when `total_s` is used up has failed,
    and those after it are skipped.
    """
    ends = time.monotonic() + total_s
    outcomes = []
    for step in steps:
        left = ends - time.monotonic()
        if step.needs_engine and not engine:
            outcome = _skipped(step, "vLLM is not installed, or --no-engine was given")
        elif left < SHORTEST_S:
            outcome = _skipped(step, f"the {total_s:.0f} s of the whole check are used up: run --only {step.number}")
        else:
            outcome = run_step(step, device, engine, folder / f"step_{step.number}", min(step.limit_s, left))
        print_outcome(outcome)
        outcomes.append(outcome)
    return outcomes


def run_step(step: Step, device: str, engine: bool, folder: Path, limit_s: float) -> Outcome:
    """Run one step; its output goes to `log.txt` in `folder`."""
    folder.mkdir(parents=True)
    figures = FigureFile(folder / "figures.jsonl")
    command = [sys.executable, "-m", "benchmarks.gpu_check.child", "--module", step.module, "--device", device]
    command += ["--folder", str(folder), "--figures", str(folder / "figures.jsonl")]
    command += [] if engine else ["--no-engine"]
    started = time.monotonic()
    with (folder / "log.txt").open("w") as log:
        # A group of its own, so that a step's children end with it.
        child = subprocess.Popen(
            command, cwd=REPO, env=step_environment(device), stdout=log, stderr=log, start_new_session=True
        )
        try:
            code: int | None = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end_group(child)
    status, reason = judged(code, figures.read(), limit_s, _last_line(folder / "log.txt"))
    found = {name: value for name, value in figures.read().items() if name != REASON}
    return Outcome(step.number, step.title, status, reason, time.monotonic() - started, found)


def judged(code: int | None, figures: dict[str, Figure], limit_s: float, last_line: str) -> tuple[Status, str]:
    """Return status and reason for an exit code (None: time was up) and what the step recorded."""
    if code is None:
        return "fail", f"not finished after {limit_s:.0f} s; last output: {last_line}"
    if code == 0:
        return "pass", ""
    reason = figures.get(REASON)
    if reason is not None:
        return "skipped" if code == SKIPPED else "fail", str(reason)
    ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return "fail", f"crashed ({ended}): {last_line}"


def print_outcome(outcome: Outcome) -> None:
    """Print the figures of a step, then its outcome on one line."""
    print(f"{outcome.number:2}  {outcome.title}")
    for name, value in outcome.figures.items():
        print(f"      {name}: {formatted(value)}")
    reason = f": {outcome.reason}" if outcome.reason else ""
    print(f"    {outcome.status} after {outcome.seconds:.0f} s{reason}", flush=True)


def _skipped(step: Step, reason: str) -> Outcome:
    return Outcome(step.number, step.title, "skipped", reason, 0.0, {})


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a step's processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "none"
