"""Losses of each of the N completion tokens of a micro-batch; `reductions` says how they are averaged."""

from __future__ import annotations

from typing import NamedTuple

import torch


class TokenLoss(NamedTuple):
    """`loss_N` is differentiable; `clipped_N` marks tokens that a clip keeps from contributing a gradient."""

    loss_N: torch.Tensor
    clipped_N: torch.Tensor


class ClipRange(NamedTuple):
    """The ratio is kept within [1 - low, 1 + high]; `dual` bounds the loss of negative advantages. None: no bound."""

    low: float | None
    high: float | None
    dual: float | None = None

    def apply(self, ratio_N: torch.Tensor) -> torch.Tensor:
        """The ratio within its bounds."""
        if self.low is None and self.high is None:
            return ratio_N
        return ratio_N.clamp(None if self.low is None else 1 - self.low, None if self.high is None else 1 + self.high)


def reinforce_loss(logprobs_N: torch.Tensor, advantages_N: torch.Tensor) -> TokenLoss:
    """-A log p (REINFORCE, Williams 1992)."""
    return TokenLoss(-advantages_N * logprobs_N, torch.zeros_like(logprobs_N, dtype=torch.bool))


def clipped_loss(ratio_N: torch.Tensor, advantages_N: torch.Tensor, clip: ClipRange) -> TokenLoss:
    """-min(r A, clip(r) A) (PPO, arXiv:1707.06347, eq. 7).

    Equal bounds are PPO's and GRPO's; a larger upper one is DAPO's clip-higher (arXiv:2503.14476). With a dual
    clip c, tokens of A < 0 lose at most -c A (arXiv:1912.09729).
    """
    unclipped_N = ratio_N * advantages_N
    bounded_N = clip.apply(ratio_N) * advantages_N
    clipped_N = bounded_N < unclipped_N
    objective_N = torch.minimum(unclipped_N, bounded_N)
    if clip.dual is not None:
        # -inf elsewhere, not the objective itself: a tie would halve the gradient
        floor_N = torch.where(advantages_N < 0, clip.dual * advantages_N, -torch.inf)
        clipped_N = clipped_N | (objective_N < floor_N)
        objective_N = torch.maximum(objective_N, floor_N)
    return TokenLoss(-objective_N, clipped_N.detach())


def cispo_loss(
    ratio_N: torch.Tensor, logprobs_N: torch.Tensor, advantages_N: torch.Tensor, clip: ClipRange
) -> TokenLoss:
    """-sg(clip(r)) A log p: the weight is clipped, no token loses its gradient (CISPO, arXiv:2506.13585).

    `clipped_N` marks the tokens whose weight was cut.
    """
    weight_N = clip.apply(ratio_N).detach()
    return TokenLoss(-weight_N * advantages_N * logprobs_N, weight_N != ratio_N.detach())


def value_loss(
    values_N: torch.Tensor, old_values_N: torch.Tensor, returns_N: torch.Tensor, cliprange: float | None
) -> TokenLoss:
    """1/2 (V - R)^2, or the larger of it and the same for V kept within `cliprange` of its old value (PPO's baselines
    implementation; arXiv:2005.12729)."""
    squared_N = (values_N - returns_N) ** 2
    if cliprange is None:
        return TokenLoss(0.5 * squared_N, torch.zeros_like(values_N, dtype=torch.bool))
    near_N = old_values_N + (values_N - old_values_N).clamp(-cliprange, cliprange)
    bounded_N = (near_N - returns_N) ** 2
    return TokenLoss(0.5 * torch.maximum(squared_N, bounded_N), (bounded_N > squared_N).detach())
