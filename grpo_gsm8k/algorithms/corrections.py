"""Off-policy correction: weights of the proximal policy over the behavior policy that sampled the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from grpo_gsm8k.algorithms.ratios import importance_ratio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpo_gsm8k.algorithms.ratios import RatioLevel

Correction = Literal["none", "importance", "truncate", "mask", "masked_importance"]


def correction_weights(
    log_ratio_N: torch.Tensor,
    sequence_N: torch.Tensor,
    kind: Correction,
    level: RatioLevel,
    low: float,
    high: float,
    sequences: int | None = None,
) -> torch.Tensor:
    """Weight of each token's loss, detached [N]; `log_ratio_N` is log p_proximal - log p_behavior.

    `sequences` is as in `importance_ratio`.

    none: 1. importance: w, as in decoupled PPO (arXiv:2110.00641; AReaL, arXiv:2505.24298).
    truncate: min(w, high), truncated importance sampling (TIS; Ionides 2008). mask: 1 where low <= w <= high, else 0.
    masked_importance: w there, else 0, as IcePop does for tokens (arXiv:2510.18855).
    """
    if kind == "none":
        return torch.ones_like(log_ratio_N)
    ratio_N = importance_ratio(log_ratio_N.detach(), sequence_N, level, sequences)
    if kind == "truncate":
        return ratio_N.clamp(max=high)
    inside_N = (ratio_N >= low) & (ratio_N <= high)
    if kind == "mask":
        return inside_N.to(ratio_N.dtype)
    return ratio_N * inside_N if kind == "masked_importance" else ratio_N


def kept_tokens(
    log_ratio_N: torch.Tensor, sequence_N: torch.Tensor, ranges: Mapping[str, tuple[float, float]], sequences: int
) -> torch.Tensor:
    """Mark the tokens whose ratio is inside every range, bool [N]; `ranges` names levels of `importance_ratio`.

    The level `outlier` marks a completion if each single ratio of its tokens is inside.
    """
    kept_N = torch.ones_like(log_ratio_N, dtype=torch.bool)
    for name, (low, high) in ranges.items():
        level: RatioLevel = "token" if name == "outlier" else name  # type: ignore[assignment]
        ratio_N = importance_ratio(log_ratio_N.detach(), sequence_N, level, sequences)
        outside_N = (ratio_N < low) | (ratio_N > high)
        if name == "outlier":
            counts_S = outside_N.new_zeros(sequences, dtype=torch.long).index_add(0, sequence_N, outside_N.long())
            outside_N = counts_S[sequence_N] > 0
        kept_N &= ~outside_N
    return kept_N
