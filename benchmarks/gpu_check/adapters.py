"""Step 12: runs with an adapter: a 4-bit base whose merged weights are published, and an adapter that is swapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.gpu_check.outcome import require
from benchmarks.gpu_check.runs import newest_run, read_lines
from benchmarks.gpu_check.setup import run_cli

if TYPE_CHECKING:
    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup

LOADS = 10
GROWTH = 0.03  # of the actor's GPU memory from the third to the last load; the first two fill caches
SIZES = ("data.train_size=128", "data.val_size=8", "data.test_size=4", "policy_gradient.eval_limit=4")
# The learner multiplies by the 4-bit weights in bf16; the engine gets their merged values in its own precision.
TOLERANCE = 0.1  # nats
BF16 = ("actor.dtype=bfloat16", "learner.dtype=bfloat16")  # products with the 4-bit base are in bf16 on every device
QLORA = ("learner=qlora", "actor.lora=merged", *BF16, f"actor.canary_tolerance={TOLERANCE}")
SHORT = ("policy_gradient.episodes_per_update=32", "policy_gradient.eval_every=100", "policy_gradient.save_every=100")


def check(setup: Setup, record: Record) -> None:
    """Fail if a run fails (the canary stops a wrong one), or if the actor's GPU memory grows with the loads."""
    for name, words, updates in (
        ("qlora", QLORA, 2),
        ("lora", ("learner=lora",), LOADS),
    ):
        run_cli(setup, "command=policy_gradient", *words, f"policy_gradient.updates={updates}", *SIZES, *SHORT)
        steps = [r for r in read_lines(newest_run(setup) / "metrics.jsonl") if "step" in r]
        record(f"{name}: largest canary gap", max(float(r["sync/canary_gap"]) for r in steps))
        key = "mem/actor_gpu_held" if setup.cuda else "mem/actor_rss"
        held = [float(r[key]) for r in steps if r.get(key) is not None]
        record(f"{name}: actor's memory after the first update, GiB", held[0])
        record(f"{name}: actor's memory at the end, GiB", held[-1])
        if updates == LOADS:
            grown = held[-1] / held[2] - 1
            # On a CPU the figure is the resident memory of the whole process, not of adapters: it is only recorded.
            fine = grown < GROWTH or not setup.cuda
            require(fine, f"the actor's memory grew by {grown:.1%} over {LOADS - 3} loads")
