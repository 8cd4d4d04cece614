"""Step 11: the default preset on two GPUs; replicas that would take the learner's GPU are refused everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.gpu_check.outcome import StepFailedError, StepSkippedError
from benchmarks.gpu_check.runs import newest_run, read_lines
from benchmarks.gpu_check.setup import run_cli
from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup

TIMES = ("time/step_s", "time/actor_idle_frac", "time/learner_idle_frac", "sync/publish_s", "sync/load_s")


def check(setup: Setup, record: Record) -> None:
    """Fail if two replicas are accepted; then run three updates where there are two GPUs."""
    record("actor.replicas=2", refusal(setup))
    if not setup.cuda:
        raise StepSkippedError("there is no GPU: only the refusal of replicas was checked")
    import torch

    if torch.cuda.device_count() < 2:
        raise StepSkippedError("there is one GPU: only the refusal of replicas was checked")
    model = setup.random_model()
    words = (f"model.path={model}", "actor.device=cuda:0", "learner.device=cuda:1", "actor.gpu_memory=0.85")
    sizes = ("policy_gradient.updates=3", "policy_gradient.eval_limit=4", "data.val_size=8", "data.test_size=4")
    run_cli(setup, "command=policy_gradient", *words, *sizes, "actor.canary_tolerance=0.25")
    last = [r for r in read_lines(newest_run(setup) / "metrics.jsonl") if "step" in r][-1]
    for name in TIMES:
        if last.get(name) is not None:
            record(name, float(last[name]))


def refusal(setup: Setup) -> str:
    """Return the line that refuses a second engine on the learner's GPU."""
    from cli import load_config

    try:
        load_config(["command=policy_gradient", "preset=two_gpu", "actor.replicas=2", f"artifacts={setup.folder}"])
    except UserError as error:
        return str(error)
    raise StepFailedError("actor.replicas=2 with the learner on cuda:1 was accepted: both would share that GPU")
