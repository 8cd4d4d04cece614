"""Rewards of a group -> advantages."""

from __future__ import annotations

from typing import Literal

import numpy as np

LossType = Literal["no_baseline", "reinforce_with_baseline", "grpo_clip"]


def group_advantages(rewards_GN: np.ndarray, loss_type: LossType, eps: float) -> np.ndarray:
    """Advantage of each of N completions of G prompts, float64 [G, N].

    no_baseline: A = r (REINFORCE, Williams 1992).
    reinforce_with_baseline: A = r - mean(r of the group).
    grpo_clip: A = (r - mean) / (std + eps), std with Bessel's correction (GRPO, arXiv:2402.03300, eq. 3).

    A group whose rewards are all equal has advantages of exactly zero under the latter two, not the rounding error
    of its mean divided by eps.
    """
    rewards = np.array(rewards_GN, dtype=np.float64)
    if loss_type == "no_baseline":
        return rewards
    advantages: np.ndarray = rewards - rewards.mean(axis=1, keepdims=True)
    if loss_type == "grpo_clip":
        advantages /= rewards.std(axis=1, ddof=1, keepdims=True) + eps
    tied = zero_variance(rewards)
    advantages[tied] = 0.0
    return advantages


def zero_variance(rewards_GN: np.ndarray) -> np.ndarray:
    """Which groups have equal rewards throughout, bool [G]."""
    rewards = np.asarray(rewards_GN)
    return np.asarray(rewards.max(axis=1) == rewards.min(axis=1))
