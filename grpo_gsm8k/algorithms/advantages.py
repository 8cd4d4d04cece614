"""Advantages from the rewards of a batch, float64 [G, N]: G prompts with N completions each.

Every method but `reward` returns exactly zero for a group (or batch) whose rewards are all equal, instead of the
rounding error of its mean divided by eps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def reward(rewards_GN: np.ndarray, eps: float) -> np.ndarray:
    """A = r (REINFORCE, Williams 1992)."""
    return rewards_GN.copy()


def group_mean(rewards_GN: np.ndarray, eps: float) -> np.ndarray:
    """A = r - mean of the group (Dr. GRPO, arXiv:2503.20783)."""
    return _zero_where_tied(rewards_GN - rewards_GN.mean(axis=1, keepdims=True), rewards_GN)


def group_mean_std(rewards_GN: np.ndarray, eps: float) -> np.ndarray:
    """A = (r - mean) / (std + eps), std with Bessel's correction (GRPO, arXiv:2402.03300)."""
    centered_GN = rewards_GN - rewards_GN.mean(axis=1, keepdims=True)
    return _zero_where_tied(centered_GN / (rewards_GN.std(axis=1, ddof=1, keepdims=True) + eps), rewards_GN)


def leave_one_out(rewards_GN: np.ndarray, eps: float) -> np.ndarray:
    """A_i = r_i - mean of the other N - 1 (RLOO, arXiv:2402.14740)."""
    count = rewards_GN.shape[1]
    return _zero_where_tied((rewards_GN - rewards_GN.mean(axis=1, keepdims=True)) * count / (count - 1), rewards_GN)


def batch_whitened(rewards_GN: np.ndarray, eps: float) -> np.ndarray:
    """A = (r - mean) / (std + eps) over the whole batch (REINFORCE++, arXiv:2501.03262)."""
    if rewards_GN.max() == rewards_GN.min():
        return np.zeros_like(rewards_GN)
    whitened: np.ndarray = (rewards_GN - rewards_GN.mean()) / (rewards_GN.std() + eps)
    return whitened


ADVANTAGES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "reward": reward,
    "group_mean": group_mean,
    "group_mean_std": group_mean_std,
    "leave_one_out": leave_one_out,
    "batch_whitened": batch_whitened,
}


def zero_variance(rewards_GN: np.ndarray) -> np.ndarray:
    """Mark the groups whose rewards are all equal, bool [G]."""
    return np.asarray(rewards_GN.max(axis=1) == rewards_GN.min(axis=1))


def _zero_where_tied(advantages_GN: np.ndarray, rewards_GN: np.ndarray) -> np.ndarray:
    advantages_GN[zero_variance(rewards_GN)] = 0.0
    return advantages_GN
