"""Step 14: an engine that sleeps between updates, on the learner's GPU."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.gpu_check.outcome import StepSkippedError, require
from benchmarks.gpu_check.runs import DATA, UPDATES, newest_run, steps_of
from benchmarks.gpu_check.setup import run_cli

if TYPE_CHECKING:
    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup

WORDS = ("command=policy_gradient", *DATA, f"policy_gradient.updates={UPDATES}", "policy_gradient.eval_limit=8")
SYNCHRONOUS = ("policy_gradient.episodes_per_update=32", "policy_gradient.max_staleness=0")


def check(setup: Setup, record: Record) -> None:
    """Fail unless a run with sleeping between updates finishes; every swap in it is probed and has its canary."""
    if not setup.cuda:
        raise StepSkippedError("vLLM cannot sleep on a CPU")
    for sleeps in ("false", "true"):
        started = time.monotonic()
        run_cli(setup, *WORDS, *SYNCHRONOUS, f"actor.sleep_between_updates={sleeps}")
        record(f"actor.sleep_between_updates={sleeps}: seconds of the run", time.monotonic() - started)
        done = steps_of(newest_run(setup))
        require(done == UPDATES, f"{done} of {UPDATES} updates were done")
