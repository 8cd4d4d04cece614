"""Generalized advantage estimation over the tokens of a completion (arXiv:1506.02438)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def gae(rewards_R: np.ndarray, values_R: np.ndarray, gamma: float, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """Advantages and returns of one completion, float64 [R] each.

    delta_t = r_t + gamma V_{t+1} - V_t, A_t = sum_k (gamma lam)^k delta_{t+k} (eq. 16), return_t = A_t + V_t. The
    completion ends the episode, so V after its last token is 0.
    """
    rewards, values = np.asarray(rewards_R, dtype=np.float64), np.asarray(values_R, dtype=np.float64)
    deltas = rewards + gamma * np.append(values[1:], 0.0) - values
    advantages = np.empty_like(deltas)
    running = 0.0
    for t in reversed(range(len(deltas))):
        running = deltas[t] + gamma * lam * running
        advantages[t] = running
    return advantages, advantages + values


def whiten(advantages: Sequence[np.ndarray], eps: float) -> list[np.ndarray]:
    """Shift and scale to mean 0 and standard deviation 1 over the tokens of all completions together.

    Returns exact zeros where all of them are equal.
    """
    tokens = np.concatenate(list(advantages))
    if tokens.max() == tokens.min():
        return [np.zeros_like(a) for a in advantages]
    mean, std = tokens.mean(), tokens.std()
    return [(a - mean) / (std + eps) for a in advantages]
