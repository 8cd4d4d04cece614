"""Start learner processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.runtime.process import Deadlines, Deliver, Worker, spawn
from grpo_gsm8k.runtime.worker import learner_main, worker_setup

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.learner.spec import LearnerSpec


def spawn_learner(spec: LearnerSpec, logs: Path, deliver: Deliver) -> Worker:
    """Start the learner process."""
    learner = spec.config.learner
    return spawn(
        "learner",
        learner_main,
        (worker_setup(logs, "learner", learner.cores), spec),
        {"OMP_NUM_THREADS": str(learner.threads), "TOKENIZERS_PARALLELISM": "false"},
        Deadlines(learner.start_timeout_s, learner.progress_timeout_s),
        deliver,
    )
