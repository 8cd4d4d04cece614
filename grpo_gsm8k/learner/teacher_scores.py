"""Log-probabilities that a teacher gives the tokens of the rollouts."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.errors import LabError
from grpo_gsm8k.learner.forwards import forward_columns, policy_logprobs, unmasked
from grpo_gsm8k.learner.served_teacher import ServedTeacher

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.batching import MicroBatch, Sample
    from grpo_gsm8k.learner.objective import Models
    from grpo_gsm8k.learner.oom import TokenBudget
    from grpo_gsm8k.learner.ranks import Ranks

COLUMN = "teacher_logprobs"


def with_teacher(
    groups: list[list[Sample]],
    models: Models,
    config: Config,
    beat: Callable[[], None],
    budget: TokenBudget,
    ranks: Ranks,
) -> tuple[list[list[Sample]], float]:
    """Fill in the teacher's log-probabilities of all samples; returns the seconds that it took, too.

    `beat`, `budget` and `ranks` are as in `update_policy`. The temperature is the student's: both distributions are
    those that it divides the logits of. Raises LabError for numbers that are not finite.
    """
    started = time.monotonic()
    samples = [sample for group in groups for sample in group]
    if config.policy_gradient.teacher.base_url is not None:
        scores = iter(_scored_by_server(samples, config, beat, ranks))
    else:
        scores = iter(_scored_here(samples, models, config, beat, budget, ranks))
    filled = [[replace(s, teacher_logprobs=unmasked(s, next(scores))) for s in group] for group in groups]
    if not all(np.isfinite(s.teacher_logprobs).all() for group in filled for s in group):
        raise LabError(
            "the teacher gives log-probabilities that are not finite: check the model of policy_gradient.teacher"
        )
    return filled, time.monotonic() - started


def _scored_here(
    samples: list[Sample],
    models: Models,
    config: Config,
    beat: Callable[[], None],
    budget: TokenBudget,
    ranks: Ranks,
) -> list[np.ndarray]:
    """Log-probabilities by the frozen model of this process, float32 [predicted tokens] for each sample."""
    teacher = models.teacher
    assert teacher is not None  # the orchestrator refuses the advantage without one

    def forward(micro: MicroBatch) -> dict[str, torch.Tensor]:
        return {COLUMN: policy_logprobs(teacher, micro, config)[0].float()}

    return forward_columns(samples, [COLUMN], forward, teacher.device, beat, budget, ranks)[COLUMN]


def _scored_by_server(
    samples: list[Sample], config: Config, beat: Callable[[], None], ranks: Ranks
) -> list[np.ndarray]:
    """Log-probabilities by the server, as `_scored_here`; each rank asks for every nth sample and gets the others'."""
    ends = np.cumsum([s.predicted_tokens for s in samples], dtype=np.int64)
    flat = np.zeros(int(ends[-1]), dtype=np.float32)
    own = range(ranks.part.rank, len(samples), ranks.part.ranks)
    server = ServedTeacher(config.policy_gradient.teacher)
    for i, logprobs_R in server.scores({i: samples[i] for i in own}):
        flat[ends[i] - samples[i].predicted_tokens : ends[i]] = logprobs_R[samples[i].mask]
        beat()
    (summed,) = ranks.sum_arrays([flat])
    return np.split(summed, ends[:-1])
