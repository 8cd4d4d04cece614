"""Off-policy correction: weights of the proximal policy over the behavior policy that sampled the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from grpo_gsm8k.algorithms.ratios import importance_ratio

if TYPE_CHECKING:
    from grpo_gsm8k.algorithms.ratios import RatioLevel

Correction = Literal["none", "importance", "truncate", "mask"]


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
    IcePop and masked importance sampling mask the same tokens or sequences, but weigh the others by w; this one by 1.
    """
    if kind == "none":
        return torch.ones_like(log_ratio_N)
    ratio_N = importance_ratio(log_ratio_N.detach(), sequence_N, level, sequences)
    if kind == "truncate":
        return ratio_N.clamp(max=high)
    if kind == "mask":
        return ((ratio_N >= low) & (ratio_N <= high)).to(ratio_N.dtype)
    return ratio_N
