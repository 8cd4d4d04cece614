"""Sweeps (`--multirun`): one command after another, one for each combination of swept values."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from grpo_gsm8k.command_line.sweep_plan import plan_sweep
from grpo_gsm8k.commands.child_command import run_command
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.json_lines import read_json
from grpo_gsm8k.terminal.durations import duration
from grpo_gsm8k.tracking import manifest, run_folder
from grpo_gsm8k.tracking.redaction import redact_arguments
from grpo_gsm8k.tracking.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.command_line.sweep_plan import Job, Plan
    from grpo_gsm8k.commands.child_command import CommandResult


def run_sweep(words: Sequence[str], only: int | None) -> int:
    """Run all jobs, or job `only`; returns 0, the exit code of the first job that failed, or 130 or 143 after a signal.

    A failed job does not keep the others from running, but a signal to this process ends the sweep. A job that an
    earlier sweep of that name has completed is skipped. Raises UserError before the first job starts if any of them is
    invalid.
    """
    plan = plan_sweep(words, f"{run_folder.utc_now():%Y%m%d-%H%M%S}")
    if only is not None:
        _check_job(plan, only, words)
    finished = _finished_runs(plan.folder)
    chosen = range(len(plan.jobs)) if only is None else [only]
    done = [number for number in chosen if _recorded(plan.jobs[number].words) in finished]
    results: dict[int, CommandResult] = {}
    for number in chosen:
        if number in done:
            print(f"\n== job {number} of {len(plan.jobs)}: {plan.jobs[number].title}: done before, skipped", flush=True)
            continue
        results[number] = _run_job(plan.jobs[number], number, len(plan.jobs))
        if results[number].interrupted is not None:
            break
    if only is not None:
        return results[only].code if only in results else 0
    return _summarize(plan, results, len(done))


def _check_job(plan: Plan, number: int, words: Sequence[str]) -> None:
    if number not in range(len(plan.jobs)):
        raise UserError(f"--job {number}: the sweep has the jobs 0 to {len(plan.jobs) - 1}")
    if not any(word.startswith("sweep=") for word in words):
        raise UserError("--job needs sweep=NAME, the folder that it shares with the other jobs")
    if plan.configs[number].command == "pipeline":
        raise UserError("--job: stages of pipelines find their input as run:latest, which may be another job's: use -m")


def _run_job(job: Job, number: int, total: int) -> CommandResult:
    print(f"\n== job {number} of {total}: {job.title}", flush=True)
    started = time.monotonic()
    result = run_command(job.words)
    where = f": {result.runs[-1]}" if result.runs else ""
    print(f"== job {number}: exit code {result.code} after {duration(time.monotonic() - started)}{where}", flush=True)
    return result


def _summarize(plan: Plan, results: dict[int, CommandResult], skipped: int) -> int:
    """Print how many jobs ended how, and on stderr those that failed; returns the exit code of the sweep."""
    failed = {number: result for number, result in results.items() if result.code}
    stop = next((result.interrupted for result in results.values() if result.interrupted is not None), None)
    left = len(plan.jobs) - len(results) - skipped
    counts = [f"{len(results) - len(failed)} jobs done", f"{skipped} done before", f"{len(failed)} failed"]
    where = f": {plan.folder}" if plan.folder.exists() else ""
    print(f"\n== sweep: {', '.join(counts)}, {left} not started{where}", flush=True)
    reasons = [f"job {number} ({plan.jobs[number].title}): exit code {r.code}" for number, r in failed.items()]
    if stop is not None:
        reasons.insert(0, f"interrupted by {stop.name}")
    if reasons:
        print(f"error: {'; '.join(reasons)}", file=sys.stderr, flush=True)
    return 128 + stop if stop is not None else next((result.code for result in failed.values()), 0)


def _recorded(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(redact_arguments(list(words)))


def _finished_runs(folder: Path) -> set[tuple[str, ...]]:
    """Return the words of the runs in a sweep folder that are complete."""
    found = set()
    for path in run_folder.all_folders(folder):
        run = RunFolder(path)
        started = manifest.read_manifest(run) or {}
        if run.summary_json.is_file() and read_json(run.summary_json).get("status", "done") == "done":
            found.add(tuple(started.get("command_line", [])[1:]))
    return found
