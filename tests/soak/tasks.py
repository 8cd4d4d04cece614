"""The commands that a soak runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Task:
    """A command that is run to its end.

    `before` are commands that its artifacts folder needs once, `section` is that of its `resume_from`, `resumable` the
    files that a run needs to be resumed, `updates` those of a training run.
    """

    name: Literal["policy_gradient", "sft", "eval"]
    words: tuple[str, ...]
    section: str
    resumable: str
    updates: int = 0
    before: tuple[tuple[str, ...], ...] = ()
    longest_pause_s: float = 8.0  # between two faults


_CHECKPOINT = "checkpoints/step_*/manifest.json"
# A worker that is stopped while it starts is replaced after its start's limit, so that one is short, too.
_ACTOR = (
    *("preset=cpu_demo", "wandb.mode=off", "actor.max_restarts=100"),
    *("actor.progress_timeout_s=5", "actor.start_timeout_s=90"),
)
_LEARNER = ("learner.max_restarts=100", "learner.progress_timeout_s=10", "learner.start_timeout_s=90")
_SFT_DATA = ("preset=cpu_demo", "data.train_size=160", "data.val_size=32", "data.test_size=4")

POLICY_GRADIENT = Task(
    "policy_gradient",
    (
        "command=policy_gradient",
        "policy_gradient.updates=20",
        "policy_gradient.episodes_per_update=64",
        "policy_gradient.eval_every=5",
        "policy_gradient.eval_limit=32",
        "policy_gradient.save_every=2",
        *_ACTOR,
        *_LEARNER,
    ),
    "policy_gradient",
    _CHECKPOINT,
    updates=20,
)
SFT = Task(
    "sft",
    (
        "command=sft",
        *_ACTOR,
        *_SFT_DATA[1:],
        *_LEARNER,
        "sft.epochs=12",
        "sft.min_tokens_per_update=600",
        "sft.eval_every=8",
        "sft.save_every=4",
        "learner.deterministic=true",
    ),
    "sft",
    _CHECKPOINT,
    updates=64,
    before=(("command=preprocess", *_SFT_DATA),),
)
EVAL = Task(
    "eval",
    (
        "command=eval",
        *_ACTOR,
        "eval.temperatures=[0.0,0.8]",
        "eval.samples=8",
        "data.test_size=512",
    ),
    "eval",
    "predictions.jsonl",
    longest_pause_s=4.0,
)
TASKS = (POLICY_GRADIENT, SFT, EVAL)
