"""Reduction of token losses to the loss of an optimizer step, as a weight per token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Reduction = Literal["sequence_mean", "token_mean", "sequence_sum", "constant"]


def token_weights(lengths: Sequence[int], reduction: Reduction, constant: int) -> list[float]:
    """Weight of each token of a sequence, for all sequences of one optimizer step across its micro-batches.

    sequence_mean: mean over a sequence's tokens, then over sequences (GRPO, arXiv:2402.03300, eq. 3). token_mean: mean
    over all tokens (DAPO, arXiv:2503.14476). sequence_sum: sum over a sequence's tokens, then mean over sequences
    (LUSPO, arXiv:2602.05261). constant: sum over tokens divided by `constant`, then mean over sequences (Dr. GRPO,
    arXiv:2503.20783).
    """
    if reduction == "sequence_mean":
        return [1.0 / (max(1, length) * len(lengths)) for length in lengths]
    if reduction == "token_mean":
        return [1.0 / max(1, sum(lengths))] * len(lengths)
    per_sequence = 1 if reduction == "sequence_sum" else constant
    return [1.0 / (per_sequence * len(lengths))] * len(lengths)
