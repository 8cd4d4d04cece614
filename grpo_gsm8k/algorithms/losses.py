"""Policy and value losses per predicted token, [N]; `reductions` defines how they are averaged."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch

from grpo_gsm8k.algorithms.loss_inputs import LossInputs, TokenLoss, chosen
from grpo_gsm8k.algorithms.sequence_losses import gmpo_loss, vespo_loss

SMALLEST_REST = 1e-8  # as in the authors' program of DPPO


def reinforce_loss(inputs: LossInputs) -> TokenLoss:
    """-A log p (REINFORCE, Williams 1992)."""
    loss_N = -inputs.advantages_N * inputs.logprobs_N
    return TokenLoss(loss_N, torch.zeros_like(loss_N, dtype=torch.bool))


def pair_loss(inputs: LossInputs) -> TokenLoss:
    """-w log p: its gradient is that of the mean of `pair_losses` over the groups.

    w is minus the derivative of that mean with respect to the completion's log-probability (DPO, arXiv:2305.18290, or
    IPO, arXiv:2310.12036), computed with the weights of the optimizer step.
    """
    return reinforce_loss(inputs)


def clipped_loss(inputs: LossInputs) -> TokenLoss:
    """-min(r A, clip(r) A) (PPO, arXiv:1707.06347, eq. 7).

    Equal bounds give PPO and GRPO; a larger upper one is DAPO's clip-higher (arXiv:2503.14476). With a dual clip c, the
    loss of tokens with A < 0 is at most -c A (arXiv:1912.09729).
    """
    advantages_N, clip = inputs.advantages_N, inputs.clip
    unclipped_N = inputs.ratio_N * advantages_N
    bounded_N = clip.apply(inputs.ratio_N) * advantages_N
    clipped_N = bounded_N < unclipped_N
    objective_N = torch.minimum(unclipped_N, bounded_N)
    if clip.dual is not None:
        # -inf elsewhere, not the objective itself: a tie in torch.maximum would halve the gradient.
        floor_N = torch.where(advantages_N < 0, clip.dual * advantages_N, -torch.inf)
        clipped_N = clipped_N | (objective_N < floor_N)
        objective_N = torch.maximum(objective_N, floor_N)
    return TokenLoss(-objective_N, clipped_N.detach())


def cispo_loss(inputs: LossInputs) -> TokenLoss:
    """-sg(clip(r)) A log p: the weight is clipped, and no token loses its gradient (CISPO, arXiv:2506.13585).

    `clipped_N` marks the tokens whose weight was clipped.
    """
    weight_N = inputs.clip.apply(inputs.ratio_N).detach()
    loss_N = -weight_N * inputs.advantages_N * inputs.logprobs_N
    return TokenLoss(loss_N, weight_N != inputs.ratio_N.detach())


def sapo_loss(inputs: LossInputs, tau_pos: float, tau_neg: float) -> TokenLoss:
    """-A sigmoid(tau (r - 1)) 4 / tau, with one temperature for A > 0, another for A <= 0 (SAPO, arXiv:2511.20347).

    The gate's slope is 1 at r = 1 and falls off smoothly on both sides instead of ending at a clip.
    """
    advantages_N = inputs.advantages_N
    tau_N = chosen(advantages_N > 0, tau_pos, tau_neg, advantages_N)
    loss_N = -advantages_N * torch.sigmoid(tau_N * (inputs.ratio_N - 1)) * 4 / tau_N
    return TokenLoss(loss_N, torch.zeros_like(loss_N, dtype=torch.bool))


def dppo_loss(inputs: LossInputs, divergence: Literal["tv", "kl"]) -> TokenLoss:
    """-sg(r) A log p, zero for tokens that have left a trust region on the side where they gain (arXiv:2602.04879).

    The region bounds the divergence of two distributions over {this token, another one}, with p now and q before:
    tv: |p - q|; kl: KL(q || p). The bound is `clip.high` for A > 0 and p > q, `clip.low` for A < 0 and p < q; a dual
    clip is the largest r, for both signs (section 5.4).
    """
    advantages_N, (low, high, largest) = inputs.advantages_N, inputs.clip
    logprobs_N, old_N = inputs.logprobs_N.detach(), inputs.old_logprobs_N
    now_N, before_N = logprobs_N.exp(), old_N.exp()
    if divergence == "tv":
        distance_N = (now_N - before_N).abs()
    else:
        # The probability of all other tokens. For a certain token float32 gives 0, whose logarithm would be infinite.
        rest_now_N, rest_before_N = ((-torch.expm1(x)).clamp(min=SMALLEST_REST) for x in (logprobs_N, old_N))
        distance_N = before_N * (old_N - logprobs_N) + rest_before_N * (rest_before_N / rest_now_N).log()
    left_above_N = (advantages_N > 0) & (now_N > before_N) & (distance_N > _bound(high))
    left_below_N = (advantages_N < 0) & (now_N < before_N) & (distance_N > _bound(low))
    left_N = left_above_N | left_below_N
    weight_N = inputs.ratio_N.detach().clamp(max=_bound(largest)).masked_fill(left_N, 0.0)
    return TokenLoss(-weight_N * advantages_N * inputs.logprobs_N, left_N)


def masked_ratio_loss(inputs: LossInputs) -> TokenLoss:
    """-r A, zero for the selected tokens (M2PO, arXiv:2510.01161, with `selection.second_moment_outliers`)."""
    loss_N = -inputs.ratio_N * inputs.advantages_N
    return TokenLoss(loss_N.masked_fill(inputs.selected_N, 0.0), inputs.selected_N)


def clip_cov_loss(inputs: LossInputs) -> TokenLoss:
    """The clipped loss, zero for the selected tokens (Clip-Cov, arXiv:2505.22617, with `selection.random_within`)."""
    loss_N, clipped_N = clipped_loss(inputs)
    return TokenLoss(loss_N.masked_fill(inputs.selected_N, 0.0), clipped_N | inputs.selected_N)


def kl_cov_loss(inputs: LossInputs, fraction: float, coef: float) -> TokenLoss:
    """-r A, plus coef |log r| for the selected tokens (KL-Cov, arXiv:2505.22617, with `selection.largest`).

    |log r| is the penalty in the authors' program; `fraction` belongs to the selection.
    """
    distance_N = (inputs.logprobs_N - inputs.old_logprobs_N).abs()
    loss_N = -inputs.ratio_N * inputs.advantages_N + coef * distance_N * inputs.selected_N
    return TokenLoss(loss_N, torch.zeros_like(loss_N, dtype=torch.bool))


def _bound(value: float | None) -> float:
    return torch.inf if value is None else value


LOSSES: dict[str, Callable[..., TokenLoss]] = {
    "no_baseline": reinforce_loss,
    "reinforce_with_baseline": reinforce_loss,
    "dpo": pair_loss,
    "grpo_clip": clipped_loss,
    "ppo_clip": clipped_loss,
    "cispo": cispo_loss,
    "sapo": sapo_loss,
    "dppo_tv": partial(dppo_loss, divergence="tv"),
    "dppo_kl": partial(dppo_loss, divergence="kl"),
    "gmpo": gmpo_loss,
    "vespo": vespo_loss,
    "m2po": masked_ratio_loss,
    "clip_cov": clip_cov_loss,
    "kl_cov": kl_cov_loss,
}


def value_loss(
    values_N: torch.Tensor, old_values_N: torch.Tensor, returns_N: torch.Tensor, cliprange: float | None
) -> TokenLoss:
    """1/2 (V - R)^2, or its maximum with the same loss for V kept within `cliprange` of its old value.

    The clipped form is that of OpenAI's baselines (see arXiv:2005.12729).
    """
    squared_N = (values_N - returns_N) ** 2
    if cliprange is None:
        return TokenLoss(0.5 * squared_N, torch.zeros_like(values_N, dtype=torch.bool))
    moved_N = values_N - old_values_N
    bounded_N = (old_values_N + moved_N.clamp(-cliprange, cliprange) - returns_N) ** 2
    # Within the range both are the same, except for rounding.
    clipped_N = (moved_N.abs() > cliprange) & (bounded_N > squared_N)
    return TokenLoss(0.5 * torch.maximum(squared_N, bounded_N), clipped_N.detach())
