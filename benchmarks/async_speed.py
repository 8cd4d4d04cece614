"""Speedup of an asynchronous run over a synchronous one: `make bench-async`.

Uses two cores, one per process. A calibration run measures generation and learning time. The engine's batch size
(smaller is slower) or the number of epochs per batch is then set so that both take about the same time, and this
configuration runs synchronously (max_staleness=0) and asynchronously (max_staleness=2). The learning rate is zero, so
all updates cost the same.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
WARM_UP = 2  # skipped updates: caches fill, and an asynchronous run gets its first batch without waiting
UPDATES = 9
FULL_BATCH = 256  # concurrent sequences in the calibration run
COMMON = (
    "command=policy_gradient",
    "preset=cpu_demo",
    "wandb.mode=off",
    "actor.cores=[0]",
    "learner.cores=[1]",
    "learner.lr=0",
    "learner.max_restarts=0",
    "actor.max_restarts=0",
    f"policy_gradient.updates={UPDATES}",
    "policy_gradient.minibatches=1",
    "policy_gradient.eval_every=1000",
    "policy_gradient.eval_limit=1",
    "policy_gradient.save_every=1000",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over the updates of one run: seconds and fractions."""

    step_s: float
    waited_s: float
    learner_idle: float
    actor_idle: float
    staleness: float


def measure(artifacts: Path, max_staleness: int, epochs: int, sequences: int) -> Measured:
    """Run the command line once, and return its medians."""
    before = set((artifacts / "runs").glob("*"))
    arguments = [
        *COMMON,
        f"artifacts={artifacts}",
        f"policy_gradient.max_staleness={max_staleness}",
        f"policy_gradient.epochs_per_batch={epochs}",
        f"actor.max_num_seqs={sequences}",
    ]
    subprocess.run([sys.executable, str(REPO / "cli.py"), *arguments], check=True, stdout=subprocess.DEVNULL, cwd=REPO)
    (run,) = set((artifacts / "runs").glob("*")) - before
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # During the last updates of an asynchronous run, no generation is left to overlap with.
    steps = [r for r in records if "step" in r and WARM_UP < r["step"] <= UPDATES - max_staleness]

    def median(key: str) -> float:
        return statistics.median(r[key] for r in steps if r.get(key) is not None)  # no heartbeat in a short update

    waited = statistics.median(r["time/step_s"] * r["time/learner_idle_frac"] for r in steps)
    idle = median("time/learner_idle_frac"), median("time/actor_idle_frac")
    return Measured(median("time/step_s"), waited, *idle, median("rollout/staleness_mean"))


def main() -> None:
    """Calibrate, measure, print."""
    with tempfile.TemporaryDirectory() as folder:
        artifacts = Path(folder)
        calibration = measure(artifacts, 0, 1, FULL_BATCH)
        generating, learning = calibration.waited_s, calibration.step_s - calibration.waited_s
        epochs = max(1, round(generating / learning))
        # An engine step is hardly faster with half the sequences, so the ratio is squared; found by trial.
        sequences = min(FULL_BATCH, round(FULL_BATCH * (generating / learning) ** 2))
        print(
            f"calibration: generating {generating:.2f} s, learning {learning:.2f} s "
            f"-> {epochs} epochs, {sequences} concurrent sequences",
            flush=True,
        )
        runs = {
            name: measure(artifacts, staleness, epochs, sequences) for name, staleness in (("sync", 0), ("async", 2))
        }
    for name, run in runs.items():
        print(
            f"{name:5}  {run.step_s:.2f} s per update, waiting {run.waited_s:.2f} s, "
            f"learner idle {run.learner_idle:.0%}, actor idle {run.actor_idle:.0%}, staleness {run.staleness:.1f}"
        )
    print(f"ratio  {runs['sync'].step_s / runs['async'].step_s:.2f} times as fast per update")


if __name__ == "__main__":
    main()
