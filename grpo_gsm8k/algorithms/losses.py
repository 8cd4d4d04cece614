"""Policy-gradient losses over the N completion tokens of a micro-batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from grpo_gsm8k.algorithms.advantages import LossType

MAX_LOG_RATIO = 20.0  # exp of more overflows into inf, and 0 * inf in the backward pass into NaN


@dataclass(frozen=True, slots=True)
class LossOutput:
    """`loss` is this micro-batch's share of the step's loss: shares add up. The rest is detached, for metrics."""

    loss: torch.Tensor
    log_ratio_N: torch.Tensor  # log of current over behaviour probability
    clipped_N: torch.Tensor  # bool: tokens that the clip keeps from contributing a gradient


def policy_gradient_loss(
    loss_type: LossType,
    logprobs_N: torch.Tensor,
    behaviour_logprobs_N: torch.Tensor,
    advantages_N: torch.Tensor,
    weights_N: torch.Tensor,
    cliprange: float,
) -> LossOutput:
    """Sum over tokens of weight times loss; all inputs float32 [N].

    no_baseline, reinforce_with_baseline: -A log p (REINFORCE, Williams 1992).
    grpo_clip: -min(r A, clip(r, 1 - c, 1 + c) A) with r = p / p_behaviour (PPO, arXiv:1707.06347, eq. 7; GRPO,
    arXiv:2402.03300, eq. 3 without its KL term).
    """
    log_ratio = logprobs_N - behaviour_logprobs_N
    if loss_type == "grpo_clip":
        ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        clipped_ratio = ratio.clamp(1 - cliprange, 1 + cliprange)
        token_loss = -torch.minimum(ratio * advantages_N, clipped_ratio * advantages_N)
        clipped = clipped_ratio * advantages_N < ratio * advantages_N
    else:
        token_loss = -logprobs_N * advantages_N
        clipped = torch.zeros_like(logprobs_N, dtype=torch.bool)
    return LossOutput((token_loss * weights_N).sum(), log_ratio.detach(), clipped.detach())
