"""Metrics of the completions of one policy update."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.algorithms.advantages import zero_variance

if TYPE_CHECKING:
    from grpo_gsm8k.learner.rollout_batch import Batch

QUANTILES = (10, 25, 50, 75, 90)  # of the rewards in a batch, in percent


def rollout_metrics(batch: Batch, version: int) -> dict[str, float]:
    """Compute rewards, lengths and staleness of one batch by metric name."""
    graded = [g for group in batch.groups for g in group.completions]
    lengths = [len(g.completion.token_ids) for g in graded]
    staleness = [version - min(span.version for span in g.completion.version_spans) for g in graded]
    parts = {
        f"train/reward_{name}": float(np.mean([g.reward.parts[name] for g in graded]))
        for name in graded[0].reward.parts
    }
    return {
        "train/reward_mean": float(batch.rewards_GN.mean()),
        **parts,
        **reward_quantiles(batch.rewards_GN),
        "train/frac_zero_variance_groups": float(zero_variance(batch.rewards_GN).mean()),
        "rollout/tokens": float(sum(lengths)),
        "rollout/length_mean": float(np.mean(lengths)),
        "rollout/truncated_frac": float(np.mean([g.completion.finish_reason == "length" for g in graded])),
        "rollout/staleness_mean": float(np.mean(staleness)),
        "rollout/staleness_max": float(max(staleness)),
    }


def reward_quantiles(rewards_GN: np.ndarray) -> dict[str, float]:
    """Compute quantiles of the total rewards of one batch, interpolated linearly, by metric name."""
    values = np.quantile(rewards_GN, [percent / 100 for percent in QUANTILES])
    return {f"rollout/reward_p{percent}": float(value) for percent, value in zip(QUANTILES, values, strict=True)}


def failed_gradings(batch: Batch) -> int:
    """Return the number of completions whose grading a limit of time or memory ended."""
    return sum(g.grade.failed for group in batch.groups for g in group.completions)
