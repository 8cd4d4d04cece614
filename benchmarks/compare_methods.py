"""Every named method on two tasks, with the same number of episodes, three seeds, and its best learning rate.

`make methods`. The rate is the one with the highest mean accuracy on the validation set; the table has the accuracy on
the test set. Runs are those of `benchmarks/in_process.py`; outcomes are kept in a file, so the program can be ended and
started again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.in_process import Outcome, Run
from benchmarks.run_grid import Mean, outcomes
from grpo_gsm8k.command_line.word_checks import options

TASKS = {
    "sums of 3 or 4 terms": (),
    "sums of 3 to 5 terms": (
        "data.folder=sums_of_3_to_5_terms",
        "data.params={min_terms: 3, max_terms: 5, min_digits: 1, max_digits: 1}",
        "policy_gradient.max_new_tokens=64",
        "actor.max_model_len=192",
    ),
}
RATES = ("5e-5", "1.5e-4", "4e-4")  # at 1e-3 all eight methods that were tried collapsed
LEFT_OUT = ("distill",)  # it learns from a teacher, not from a reward


def runs_of(method: str, task: str, rate: str, args: argparse.Namespace) -> list[Run]:
    """Return the runs of one method, task and learning rate."""
    words = (
        f"policy_gradient={method}",
        *TASKS[task],
        f"policy_gradient.updates={args.updates}",
        f"policy_gradient.episodes_per_update={8 * args.prompts}",
        f"learner.lr={rate}",
    )
    return [Run(words, seed) for seed in range(args.seeds)]


def best(by_rate: dict[str, Sequence[Outcome]]) -> tuple[str, Sequence[Outcome]]:
    """Return the learning rate with the highest accuracy on the validation set, and its outcomes."""
    rate = max(by_rate, key=lambda name: Mean.of([outcome.validation for outcome in by_rate[name]]).value)
    return rate, by_rate[rate]


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=16, help="per update, of 8 completions each")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--methods", nargs="*", default=[m for m in options("policy_gradient") if m not in LEFT_OUT])
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts/methods"))
    args = parser.parse_args()
    args.artifacts.mkdir(parents=True, exist_ok=True)
    cells = {
        (method, task): {rate: runs_of(method, task, rate, args) for rate in RATES}
        for task in TASKS
        for method in args.methods
    }
    every = [run for by_rate in cells.values() for runs in by_rate.values() for run in runs]
    found = outcomes(every, args.artifacts / "runs.jsonl", args.artifacts, args.workers)
    print(f"| method | {' | '.join(f'{task} | rate' for task in TASKS)} |")
    print("|---|" + "---|---|" * len(TASKS))
    for method in args.methods:
        texts = []
        for task in TASKS:
            chosen = {rate: [found[run] for run in runs] for rate, runs in cells[method, task].items()}
            rate, reached = best(chosen)
            texts += [Mean.of([outcome.test for outcome in reached]).percent(), rate]
        print(f"| `{method}` | {' | '.join(texts)} |")


if __name__ == "__main__":
    main()
