"""Policy losses whose weight is a function of the whole completion, per predicted token, [N]."""

from __future__ import annotations

import torch

from grpo_gsm8k.algorithms.loss_inputs import LossInputs, TokenLoss, chosen
from grpo_gsm8k.algorithms.ratios import importance_ratio


def gmpo_loss(inputs: LossInputs) -> TokenLoss:
    """-A exp(mean of the clipped log r_t over the completion), the same for each of its tokens.

    GMPO (arXiv:2507.20673). The clip range bounds each token's log ratio, [-low, high], on the side where it
    would gain: above for A > 0, below for A < 0. The mean over a completion's tokens of this loss is the paper's.
    """
    advantages_N, (low, high, _) = inputs.advantages_N, inputs.clip
    log_ratio_N = inputs.logprobs_N - inputs.old_logprobs_N
    from_above_N = log_ratio_N if high is None else log_ratio_N.clamp(max=high)
    from_below_N = log_ratio_N if low is None else log_ratio_N.clamp(min=-low)
    bounded_N = torch.where(advantages_N > 0, from_above_N, from_below_N)
    ratio_N = importance_ratio(bounded_N, inputs.sequence_N, "geometric_mean", inputs.sequences)
    return TokenLoss(-advantages_N * ratio_N, (bounded_N != log_ratio_N).detach())


def vespo_loss(inputs: LossInputs, k_pos: float, lambda_pos: float, k_neg: float, lambda_neg: float) -> TokenLoss:
    """-sg(phi(W)) A log p with phi(W) = W^k exp(lambda (1 - W)), W the product of a completion's ratios.

    VESPO (arXiv:2602.10693, section 3.4): one pair k, lambda for A >= 0, another for A < 0; phi(1) = 1.
    """
    advantages_N = inputs.advantages_N
    log_ratio_N = (inputs.logprobs_N - inputs.old_logprobs_N).detach()
    weight_N = importance_ratio(log_ratio_N, inputs.sequence_N, "sequence", inputs.sequences)
    good_N = advantages_N >= 0
    k_N = chosen(good_N, k_pos, k_neg, advantages_N)
    lambda_N = chosen(good_N, lambda_pos, lambda_neg, advantages_N)
    phi_N = (k_N * weight_N.log() + lambda_N * (1 - weight_N)).exp()
    loss_N = -phi_N * advantages_N * inputs.logprobs_N
    return TokenLoss(loss_N, torch.zeros_like(loss_N, dtype=torch.bool))
