"""What off-policy corrections do for stale samples: `make bench-stale`.

Every sample of update k comes from the weights of update k - staleness, in `benchmarks/in_process.py`. The method is
GRPO, whose clip is the only protection without a correction.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.in_process import Run
from benchmarks.run_grid import Mean, outcomes

CORRECTIONS = ("none", "tis", "mis", "icepop", "geo_rs_tis", "decoupled")
STALENESS = (0, 2, 4, 8)


def runs_of(correction: str, staleness: int, seeds: int, updates: int, prompts: int, rate: str) -> list[Run]:
    """Return the runs of one cell of the table."""
    words = (
        f"policy_gradient/off_policy={correction}",
        f"policy_gradient.updates={updates}",
        f"policy_gradient.episodes_per_update={8 * prompts}",
        f"learner.lr={rate}",
    )
    return [Run(words, seed, staleness) for seed in range(seeds)]


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--prompts", type=int, default=16, help="per update, of 8 completions each")
    parser.add_argument("--lr", default="4e-4", help="as the demo's")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts/bench_stale"))
    args = parser.parse_args()
    args.artifacts.mkdir(parents=True, exist_ok=True)
    cells = {
        (c, s): runs_of(c, s, args.seeds, args.updates, args.prompts, args.lr) for c in CORRECTIONS for s in STALENESS
    }
    every = [run for runs in cells.values() for run in runs]
    found = outcomes(every, args.artifacts / "runs.jsonl", args.artifacts, args.workers)
    print(f"| correction | {' | '.join(f'staleness {s}' for s in STALENESS)} |")
    print("|---|" + "---|" * len(STALENESS))
    for correction in CORRECTIONS:
        texts = []
        for staleness in STALENESS:
            of_cell = [found[run] for run in cells[correction, staleness]]
            accuracy = Mean.of([outcome.test for outcome in of_cell]).percent()
            kl = Mean.of([outcome.kl_behaviour for outcome in of_cell]).value
            masked = Mean.of([outcome.masked for outcome in of_cell]).value
            texts.append(f"{accuracy} (KL {abs(kl):.3f}, {100 * masked:.0f} % left out)")
        print(f"| `{correction}` | {' | '.join(texts)} |")


if __name__ == "__main__":
    main()
