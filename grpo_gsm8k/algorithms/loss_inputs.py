"""What a policy loss reads and returns, per predicted token."""

from __future__ import annotations

from typing import NamedTuple

import torch


class TokenLoss(NamedTuple):
    """`loss_N` is differentiable; `clipped_N` marks tokens that a clip keeps from contributing a gradient."""

    loss_N: torch.Tensor
    clipped_N: torch.Tensor


class ClipRange(NamedTuple):
    """The ratio is kept within [1 - low, 1 + high]; `dual` bounds the loss of negative advantages. None: no bound.

    Some losses bound something else than the ratio: they say so.
    """

    low: float | None
    high: float | None
    dual: float | None = None

    def apply(self, ratio_N: torch.Tensor) -> torch.Tensor:
        """Return the ratio within its bounds."""
        if self.low is None and self.high is None:
            return ratio_N
        return ratio_N.clamp(None if self.low is None else 1 - self.low, None if self.high is None else 1 + self.high)


class LossInputs(NamedTuple):
    """Everything a policy loss may use, [N] each: log-probabilities now and before, ratios, advantages.

    `old_logprobs_N` are those of the ratio's denominator. `sequence_N` is the index of each token's sequence, of
    `sequences`. `selected_N` marks the tokens chosen among all of the optimizer step (see `selection`).
    """

    logprobs_N: torch.Tensor
    old_logprobs_N: torch.Tensor
    ratio_N: torch.Tensor
    advantages_N: torch.Tensor
    clip: ClipRange
    sequence_N: torch.Tensor
    sequences: int
    selected_N: torch.Tensor


def chosen(mask_N: torch.Tensor, yes: float, no: float, like_N: torch.Tensor) -> torch.Tensor:
    """One of two constants per token, [N], in the precision of `like_N`: torch.where would round them to float32."""
    return torch.full_like(like_N, no).masked_fill(mask_N, yes)
