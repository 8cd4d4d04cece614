"""Many runs in several processes, whose outcomes are appended to a file: what it holds is not run again."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from rich.console import Console
from scipy import stats

from benchmarks.in_process import Outcome, Run, train
from grpo_gsm8k.data.prepare import ensure

if TYPE_CHECKING:
    from collections.abc import Sequence


class Mean(NamedTuple):
    """Mean over seeds with its 95 % interval (Student's t); infinite for one seed."""

    value: float
    reach: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Return the mean of some values and its interval."""
        if len(values) < 2:
            return cls(float(np.mean(values)), float("inf"))
        reach = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
        return cls(float(np.mean(values)), float(reach))

    def percent(self) -> str:
        """Return both in percent: `86.5 ± 2.1`."""
        return f"{100 * self.value:.1f} ± {100 * self.reach:.1f}"


def outcomes(runs: Sequence[Run], file: Path, artifacts: Path, workers: int) -> dict[Run, Outcome]:
    """Return the outcome of every run; those that `file` lacks are made now, `workers` at a time."""
    found = _read(file)
    left = [run for run in runs if run not in found]
    for data in {run.config().data.folder: run.config().data for run in left}.values():
        ensure(data, artifacts)  # several processes may not prepare it at once
    console = Console(stderr=True)
    # Spawned: a forked child of a process with torch's threads can hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(train, run, artifacts): run for run in left}
        for future in as_completed(futures):
            run, outcome = futures[future], future.result()
            found[run] = outcome
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"run": asdict(run), "outcome": asdict(outcome)}) + "\n")
            console.print(f"{len(found)}: {run} -> {outcome}", soft_wrap=True, highlight=False)
    return {run: found[run] for run in runs}


def _read(file: Path) -> dict[Run, Outcome]:
    if not file.exists():
        return {}
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {
        Run(**{**row["run"], "overrides": tuple(row["run"]["overrides"])}): Outcome(**row["outcome"]) for row in rows
    }
