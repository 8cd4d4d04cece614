"""Advantages from the rewards of a batch, float64 [G, N]: G prompts with N completions each.

Every method but `reward` and `greedy_baseline` returns exactly zero for a group (or batch) whose rewards are all equal,
instead of the rounding error of its mean divided by eps. (`group_mean_whitened` only for such a batch: its mean is over
all tokens.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import comb

from grpo_gsm8k.errors import UserError


class Scores(NamedTuple):
    """Rewards and numbers of trained tokens of the completions, [G, N] each; eps is added to a denominator."""

    rewards_GN: np.ndarray  # float64
    lengths_GN: np.ndarray  # int64
    eps: float
    k: int | None = None  # of pass@k


def reward(scores: Scores) -> np.ndarray:
    """A = r (REINFORCE, Williams 1992)."""
    return scores.rewards_GN.copy()


def greedy_baseline(scores: Scores) -> np.ndarray:
    """A = r - r of the prompt's greedy completion (ReMax, arXiv:2310.10505); the rewards are given less that one."""
    return scores.rewards_GN.copy()


def group_mean(scores: Scores) -> np.ndarray:
    """A = r - mean of the group (Dr. GRPO, arXiv:2503.20783)."""
    return _zero_where_tied(_centered(scores), scores)


def group_mean_std(scores: Scores) -> np.ndarray:
    """A = (r - mean) / (std + eps), std with Bessel's correction (GRPO, arXiv:2402.03300)."""
    std_G1 = scores.rewards_GN.std(axis=1, ddof=1, keepdims=True)
    return _zero_where_tied(_centered(scores) / (std_G1 + scores.eps), scores)


def leave_one_out(scores: Scores) -> np.ndarray:
    """A_i = r_i - mean of the other N - 1 (RLOO, arXiv:2402.14740)."""
    count = scores.rewards_GN.shape[1]
    return _zero_where_tied(_centered(scores) * count / (count - 1), scores)


def batch_whitened(scores: Scores) -> np.ndarray:
    """A = (r - mean) / (std + eps) over the whole batch: every completion counts once, whatever its length."""
    rewards_GN = scores.rewards_GN
    if rewards_GN.max() == rewards_GN.min():
        return np.zeros_like(rewards_GN)
    whitened: np.ndarray = (rewards_GN - rewards_GN.mean()) / (rewards_GN.std() + scores.eps)
    return whitened


def group_mean_whitened(scores: Scores) -> np.ndarray:
    """r - mean of the group, then whitened over all tokens of the batch (REINFORCE++-baseline, arXiv:2501.03262)."""
    centered_GN = group_mean(scores)
    if not centered_GN.any():
        return centered_GN
    share_GN = scores.lengths_GN / scores.lengths_GN.sum()
    mean = (share_GN * centered_GN).sum()
    std = np.sqrt((share_GN * (centered_GN - mean) ** 2).sum())
    whitened: np.ndarray = (centered_GN - mean) / (std + scores.eps)
    return whitened


def group_mean_rescaled(scores: Scores) -> np.ndarray:
    """A = B / (B - M) (r - mean of the group), with M of the batch's B completions in tied groups (GPG, 2504.02546)."""
    tied_G = zero_variance(scores.rewards_GN)
    return group_mean(scores) * (len(tied_G) / max(1, len(tied_G) - int(tied_G.sum())))


def length_weighted(scores: Scores) -> np.ndarray:
    """r minus the mean of the group weighted by the completions' lengths (OPO, arXiv:2505.23585)."""
    total_G1 = np.maximum(1, scores.lengths_GN.sum(axis=1, keepdims=True))
    baseline_G1 = (scores.lengths_GN * scores.rewards_GN).sum(axis=1, keepdims=True) / total_G1
    return _zero_where_tied(scores.rewards_GN - baseline_G1, scores)


def mean_normalized(scores: Scores) -> np.ndarray:
    """A = (r - mean) / (mean + eps) of the group (MaxRL, arXiv:2602.02710). Raises UserError for a reward below 0."""
    if scores.rewards_GN.min() < 0:
        raise UserError(
            f"advantage=mean_normalized needs rewards of at least 0, one is {scores.rewards_GN.min():g}: change "
            "policy_gradient.rewards, or set policy_gradient.advantage=group_mean"
        )
    mean_G1 = scores.rewards_GN.mean(axis=1, keepdims=True)
    return _zero_where_tied(_centered(scores) / (mean_G1 + scores.eps), scores)


def pass_at_k(scores: Scores) -> np.ndarray:
    """Advantage of a completion in a random k of its group, whose reward is that one of them is right.

    arXiv:2508.10751, eq. 14 and 15: with c of N right, mean R = 1 - C(N-c, k) / C(N, k), std s = sqrt(R (1 - R)),
    A = (1 - R) / (s + eps) if right, else (1 - R - C(N-c-1, k-1) / C(N-1, k-1)) / (s + eps). Raises UserError for a
    reward other than 0 and 1.
    """
    rewards_GN, k = scores.rewards_GN, scores.k
    assert k is not None  # the configuration has it for this advantage
    right_GN = rewards_GN == 1
    if not (right_GN | (rewards_GN == 0)).all():
        raise UserError("advantage=pass_at_k needs rewards of 0 and 1: set 'policy_gradient.rewards={correct: 1.0}'")
    count = rewards_GN.shape[1]
    wrong_G1 = count - right_GN.sum(axis=1, keepdims=True)
    failed_G1 = comb(wrong_G1, k) / comb(count, k)  # 1 - R
    others_failed_G1 = comb(np.maximum(0, wrong_G1 - 1), k - 1) / comb(count - 1, k - 1)
    advantages_GN = np.where(right_GN, failed_G1, failed_G1 - others_failed_G1)
    return _zero_where_tied(advantages_GN / (np.sqrt(failed_G1 * (1 - failed_G1)) + scores.eps), scores)


def preference(scores: Scores) -> np.ndarray:
    """Rank of the reward in its group, the lowest 1: only the order counts, and only for `loss_type=dpo`."""
    ranks_GN = 1.0 + np.array([np.unique(row, return_inverse=True)[1] for row in scores.rewards_GN])
    return _zero_where_tied(ranks_GN, scores)


ADVANTAGES: dict[str, Callable[[Scores], np.ndarray]] = {
    "reward": reward,
    "greedy_baseline": greedy_baseline,
    "group_mean": group_mean,
    "group_mean_std": group_mean_std,
    "leave_one_out": leave_one_out,
    "batch_whitened": batch_whitened,
    "group_mean_whitened": group_mean_whitened,
    "group_mean_rescaled": group_mean_rescaled,
    "length_weighted": length_weighted,
    "mean_normalized": mean_normalized,
    "pass_at_k": pass_at_k,
    "preference": preference,
}


def zero_variance(rewards_GN: np.ndarray) -> np.ndarray:
    """Mark the groups whose rewards are all equal, bool [G]."""
    return np.asarray(rewards_GN.max(axis=1) == rewards_GN.min(axis=1))


def _centered(scores: Scores) -> np.ndarray:
    centered_GN: np.ndarray = scores.rewards_GN - scores.rewards_GN.mean(axis=1, keepdims=True)
    return centered_GN


def _zero_where_tied(advantages_GN: np.ndarray, scores: Scores) -> np.ndarray:
    advantages_GN[zero_variance(scores.rewards_GN)] = 0.0
    return advantages_GN
