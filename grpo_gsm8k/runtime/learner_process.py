"""Start learner processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from grpo_gsm8k.runtime.process import Deadlines, Deliver, Worker, spawn
from grpo_gsm8k.runtime.worker import learner_main, worker_setup
from grpo_gsm8k.tracking.cpu_allocator import allocator_variables
from grpo_gsm8k.tracking.gpu_list import DEVICE_ORDER

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.config import LearnerConfig
    from grpo_gsm8k.learner.spec import LearnerSpec

ALLOCATOR_KEYS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # today's name and the one before


def spawn_learner(spec: LearnerSpec, logs: Path, deliver: Deliver) -> Worker:
    """Start the learner process."""
    learner = spec.config.learner
    return spawn(
        "learner",
        learner_main,
        (worker_setup(logs, "learner", learner.cores), spec),
        learner_environment(learner),
        Deadlines(learner.start_timeout_s, learner.progress_timeout_s),
        deliver,
    )


def learner_environment(learner: LearnerConfig) -> dict[str, str]:
    """Return the variables that the process reads when it starts and imports torch."""
    values = {"OMP_NUM_THREADS": str(learner.threads), "TOKENIZERS_PARALLELISM": "false"}
    if learner.device == "cpu":
        return values | allocator_variables()
    if not any(key in os.environ for key in ALLOCATOR_KEYS):
        values[ALLOCATOR_KEYS[0]] = "expandable_segments:True"  # micro-batches have all sizes: fewer unusable gaps
    return values | DEVICE_ORDER
