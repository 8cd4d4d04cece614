"""Which tokens of an optimizer step a loss treats differently, chosen among all N of them together.

Arrays are float64 [N] on the host; `log_ratio_N` is log p now - log p before. The results are bool [N].
"""

from __future__ import annotations

import numpy as np


def second_moment_outliers(log_ratio_N: np.ndarray, advantages_N: np.ndarray, threshold: float) -> np.ndarray:
    """Mark the fewest tokens without which the mean squared log ratio is at most `threshold`, the largest first.

    M2PO (arXiv:2510.01161, algorithm 1). Only tokens where PPO would clip count and are marked: r > 1 with A > 0, and
    r < 1 with A < 0.
    """
    places = np.flatnonzero(log_ratio_N * advantages_N > 0)
    order = places[np.argsort(log_ratio_N[places] ** 2, kind="stable")]
    means = np.cumsum(log_ratio_N[order] ** 2) / np.arange(1, len(order) + 1)
    marked_N = np.zeros(len(log_ratio_N), dtype=np.bool_)
    marked_N[order[int((means <= threshold).sum()) :]] = True  # the means grow with each larger square
    return marked_N


def covariances(logprobs_N: np.ndarray, advantages_N: np.ndarray) -> np.ndarray:
    """Product of the centered log-probability and the centered advantage of each token (arXiv:2505.22617)."""
    found_N: np.ndarray = (logprobs_N - logprobs_N.mean()) * (advantages_N - advantages_N.mean())
    return found_N


def random_within(
    values_N: np.ndarray, allowed_N: np.ndarray, low: float, high: float, fraction: float, seed: tuple[int, ...]
) -> np.ndarray:
    """Mark a `fraction` of N tokens, at least one, drawn from the allowed ones with low < value < high.

    If there are fewer of them, all are marked. Clip-Cov (arXiv:2505.22617), of the covariances.
    """
    candidates = np.flatnonzero(allowed_N & (values_N > low) & (values_N < high))
    wanted = min(max(1, int(fraction * len(values_N))), len(candidates))
    marked_N = np.zeros(len(values_N), dtype=np.bool_)
    marked_N[np.random.default_rng(seed).choice(candidates, size=wanted, replace=False)] = True
    return marked_N


def largest(values_N: np.ndarray, fraction: float) -> np.ndarray:
    """Mark the largest `fraction` of N values, at least one; of KL-Cov (arXiv:2505.22617), of the covariances."""
    marked_N = np.zeros(len(values_N), dtype=np.bool_)
    if len(values_N):
        marked_N[np.argsort(-values_N, kind="stable")[: max(1, int(fraction * len(values_N)))]] = True
    return marked_N
