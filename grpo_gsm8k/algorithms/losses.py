"""Policy and value losses per predicted token, [N]; `reductions` defines how they are averaged."""

from __future__ import annotations

from collections.abc import Callable
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
        """Return the ratio within its bounds."""
        if self.low is None and self.high is None:
            return ratio_N
        return ratio_N.clamp(None if self.low is None else 1 - self.low, None if self.high is None else 1 + self.high)


class LossInputs(NamedTuple):
    """Everything a policy loss may use, [N] each: current log-probabilities, importance ratios, advantages."""

    logprobs_N: torch.Tensor
    ratio_N: torch.Tensor
    advantages_N: torch.Tensor
    clip: ClipRange


def reinforce_loss(inputs: LossInputs) -> TokenLoss:
    """-A log p (REINFORCE, Williams 1992)."""
    loss_N = -inputs.advantages_N * inputs.logprobs_N
    return TokenLoss(loss_N, torch.zeros_like(loss_N, dtype=torch.bool))


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


LOSSES: dict[str, Callable[[LossInputs], TokenLoss]] = {
    "no_baseline": reinforce_loss,
    "reinforce_with_baseline": reinforce_loss,
    "grpo_clip": clipped_loss,
    "ppo_clip": clipped_loss,
    "cispo": cispo_loss,
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
