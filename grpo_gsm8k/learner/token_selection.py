"""The tokens that a loss treats differently, chosen before an optimizer step among all of its tokens.

The choice needs the present policy's log-probabilities of the whole step, so it costs a forward pass more. It does not
depend on micro-batches, except for rounding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from grpo_gsm8k.algorithms.selection import covariances, largest, random_within, second_moment_outliers
from grpo_gsm8k.config import SELECTS_TOKENS
from grpo_gsm8k.learner.forwards import forward_columns, policy_logprobs
from grpo_gsm8k.learner.ranks import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpo_gsm8k.config import Config, PolicyGradientConfig
    from grpo_gsm8k.learner.batching import MicroBatch, Sample
    from grpo_gsm8k.learner.model import Policy
    from grpo_gsm8k.learner.oom import TokenBudget
    from grpo_gsm8k.learner.ranks import Ranks


def with_selection(
    policy: Policy,
    samples: Sequence[Sample],
    config: Config,
    seed: tuple[int, ...],
    beat: Callable[[], None],
    budget: TokenBudget,
    ranks: Ranks = ALONE,
) -> list[Sample]:
    """Fill in `selected` of the samples of an optimizer step, if the loss needs it; `seed` is for a random choice."""
    if config.policy_gradient.loss_type not in SELECTS_TOKENS:
        return list(samples)
    counted = [s for s in samples if s.in_loss]
    logprobs = present_logprobs(policy, counted, config, beat, budget, ranks)
    selected_N = selection(counted, np.concatenate([*logprobs, np.empty(0)]), config.policy_gradient, seed)
    ends = np.cumsum([s.predicted_tokens for s in counted], dtype=np.int64)
    marks = iter(np.split(selected_N, ends[:-1]))
    return [replace(s, selected=_at_places(s, next(marks))) if s.in_loss else s for s in samples]


def selection(
    samples: Sequence[Sample], logprobs_N: np.ndarray, pg: PolicyGradientConfig, seed: tuple[int, ...]
) -> np.ndarray:
    """Choose among the N predicted tokens of the samples, whose present log-probabilities are given; bool [N]."""
    advantages_N, old_N = (
        np.concatenate([*(getattr(s, name)[s.mask] for s in samples), np.empty(0)]).astype(np.float64)
        for name in ("advantages", "proximal_logprobs")
    )
    log_ratio_N = logprobs_N - old_N
    if pg.loss_type == "m2po":
        return second_moment_outliers(log_ratio_N, advantages_N, pg.m2po.threshold)
    if not len(logprobs_N):
        return np.zeros(0, dtype=np.bool_)
    values_N = covariances(logprobs_N, advantages_N)
    if pg.loss_type == "kl_cov":
        return largest(values_N, pg.kl_cov.fraction)
    low, high = pg.clip_bounds
    ratio_N = np.exp(log_ratio_N)
    clipped_N = ((advantages_N > 0) & (ratio_N > high)) | ((advantages_N < 0) & (ratio_N < low))
    chosen = pg.clip_cov
    return random_within(values_N, ~clipped_N, chosen.low, chosen.high, chosen.fraction, seed)


def present_logprobs(
    policy: Policy,
    samples: Sequence[Sample],
    config: Config,
    beat: Callable[[], None],
    budget: TokenBudget,
    ranks: Ranks = ALONE,
) -> list[np.ndarray]:
    """Compute the log-probabilities of each sample's predicted tokens, float64, without dropout.

    All ranks get the same numbers, so they choose the same tokens.
    """

    def forward(micro: MicroBatch) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            logprobs_N, _ = policy_logprobs(policy, micro, config)
        return {"logprobs": logprobs_N.float()}

    found = forward_columns(samples, ["logprobs"], forward, policy.device, beat, budget, ranks)
    return [logprobs.astype(np.float64) for logprobs in found["logprobs"]]


def _at_places(sample: Sample, marks: np.ndarray) -> np.ndarray:
    selected_R = np.zeros(len(sample.completion_ids), dtype=np.bool_)
    selected_R[sample.mask] = marks
    return selected_R
