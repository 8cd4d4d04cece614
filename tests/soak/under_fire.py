"""Learning under fire: `make under-fire`.

The demo (`preset=cpu_demo`, the real engine) with several seeds undisturbed, then with faults inside its workers. A run
under fire must have at least 20 faults, lose nothing, and end with an accuracy within the interval of the undisturbed
runs: the 95 % prediction interval for one more run, mean +- t s sqrt(1 + 1/n), from Student's t with n - 1 degrees of
freedom. One JSON line per run, and one with the interval. Exit code 1 if a run fails any of this.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from tests.conftest import Cli, read_jsonl
from tests.soak.checks import lost_in
from tests.soak.fire import UNDER_FIRE, run_under_fire

UPDATES = 30
DEMO = (
    "command=policy_gradient",
    "preset=cpu_demo",
    "wandb.mode=off",
    f"policy_gradient.updates={UPDATES}",
    "policy_gradient.save_every=1",  # a learner that dies once in three updates would not get to the tenth
)
LEAST_FAULTS = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs under fire")
    parser.add_argument("--undisturbed", type=int, default=5, help="runs without faults; two at least")
    parser.add_argument("--rate", type=float, default=0.06, help="of FAULTS")
    parser.add_argument("--folder", type=Path, default=None, help="keep the runs here")
    parser.add_argument("words", nargs="*", help="further settings of all runs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, words = given.folder or Path(temporary), (*DEMO, *given.words)
        before = [undisturbed(folder, seed, words) for seed in range(1, given.undisturbed + 1)]
        low, high = prediction_interval([run["accuracy"] for run in before])
        print(json.dumps({"undisturbed": len(before), "interval": [round(low, 4), round(high, 4)]}), flush=True)
        runs = [under_fire(folder, seed, words, given.rate, low, high) for seed in range(1, given.seeds + 1)]
    failed = sum(bool(run["problems"]) for run in runs)
    print(json.dumps({"under_fire": len(runs), "faults": sum(run["faults"] for run in runs), "failed": failed}))
    return int(bool(failed))


def undisturbed(folder: Path, seed: int, words: tuple[str, ...]) -> dict[str, Any]:
    """Run the demo once without faults, and print its line."""
    started = time.monotonic()
    cli = Cli(folder / f"undisturbed_{seed}")
    done = cli.run(*words, *UNDER_FIRE, f"seed={seed}")
    if done.returncode != 0:
        raise SystemExit(f"the undisturbed run failed: {done.stderr}")
    accuracy = accuracies(cli.runs()[-1])
    line = {
        "kind": "undisturbed",
        "seed": seed,
        "accuracy": accuracy[UPDATES],
        "accuracies": accuracy,
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(line), flush=True)
    return line


def under_fire(folder: Path, seed: int, words: tuple[str, ...], rate: float, low: float, high: float) -> dict[str, Any]:
    """Run the demo once with faults, check it, and print its line."""
    started = time.monotonic()
    fired = run_under_fire(Cli(folder / f"fire_{seed}"), (*words, f"seed={seed}"), seed, rate)
    problems = [f"exit code {fired.code}: {fired.last_words}"] if fired.code else lost_in(fired.run, UPDATES)
    accuracy = accuracies(fired.run)
    if not low <= accuracy.get(UPDATES, -1.0) <= high:
        problems.append(f"the accuracy is not between {low:.4f} and {high:.4f}")
    if len(fired.faults) < LEAST_FAULTS:
        problems.append(f"{len(fired.faults)} faults are less than {LEAST_FAULTS}: raise --rate")
    problems += [f"not proven to have fired: {fault}" for fault in fired.unproven]
    line = {
        "kind": "under fire",
        "seed": seed,
        "accuracy": accuracy.get(UPDATES),
        "accuracies": accuracy,
        "faults": len(fired.faults),
        "by_kind": fired.kinds,
        "by_hook": fired.hooks,
        "seconds": round(time.monotonic() - started, 1),
        "problems": problems,
    }
    print(json.dumps(line), flush=True)
    return line


def accuracies(run: Path) -> dict[int, float]:
    """Return the validations of a run: accuracy by version."""
    records = read_jsonl(run / "metrics.jsonl")
    return {int(str(r["val/version"])): float(str(r["val/accuracy"])) for r in records if "val/version" in r}


def prediction_interval(values: list[float]) -> tuple[float, float]:
    """Return the 95 % prediction interval for one more value of a normal distribution."""
    n = len(values)
    half = float(student.ppf(0.975, n - 1)) * statistics.stdev(values) * (1 + 1 / n) ** 0.5
    return statistics.mean(values) - half, statistics.mean(values) + half


if __name__ == "__main__":
    sys.exit(main())
