"""Step 10: a regression suite beside the actor; shares of a GPU that cannot both be had are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.gpu_check.outcome import StepFailedError, require
from benchmarks.gpu_check.runs import newest_run, read_lines
from benchmarks.gpu_check.setup import run_cli
from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup

SUITE = (
    "policy_gradient.regression_suite.tasks=[tiny_sums]",
    "policy_gradient.regression_suite.every=2",
    "policy_gradient.regression_suite.limit=8",
    "policy_gradient.regression_suite.gpu_memory=0.2",
)


def check(setup: Setup, record: Record) -> None:
    """Fail unless 0.8 + 0.2 is refused with a line that names the key, and a run with less scores its versions."""
    record("0.8 + 0.2", refusal(setup))
    # One GPU also holds the learner; with two the actor could take 0.74.
    share = ("actor.gpu_memory=0.4",) if setup.cuda else ()
    words = ("policy_gradient.updates=2", "policy_gradient.eval_limit=4", "policy_gradient.episodes_per_update=32")
    sizes = ("data.train_size=64", "data.val_size=8", "data.test_size=4")
    run_cli(setup, "command=policy_gradient", *SUITE, *share, *words, *sizes)
    events = read_lines(newest_run(setup) / "events.jsonl")
    failed = [e["reason"] for e in events if e["kind"] == "regression_suite_failed"]
    scored = [e for e in events if e["kind"] == "regression_suite"]
    record("versions scored", len(scored))
    require(not failed, f"the suite failed: {failed[0] if failed else ''}")
    require(bool(scored), "the suite scored no version")


def refusal(setup: Setup) -> str:
    """Return the line that refuses 0.8 + 0.2 of one GPU; vLLM's own context needs the rest."""
    from cli import load_config

    words = ("command=policy_gradient", "preset=two_gpu", "actor.gpu_memory=0.8", f"artifacts={setup.folder}")
    try:
        load_config([*words, *SUITE])
    except UserError as error:
        if "gpu_memory" not in str(error):
            raise
        return str(error)
    raise StepFailedError("actor.gpu_memory=0.8 with 0.2 for the suite was accepted: its engine cannot start")
