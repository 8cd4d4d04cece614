"""Importance ratios of N completion tokens in S sequences, per token or per sequence."""

from __future__ import annotations

from typing import Literal

import torch

RatioLevel = Literal["token", "sequence", "geometric_mean", "geometric_mean_token"]
MAX_LOG_RATIO = 20.0  # a much larger ratio overflows: inf, and NaN (0 * inf) in the backward pass


def importance_ratio(
    log_ratio_N: torch.Tensor, sequence_N: torch.Tensor, level: RatioLevel, sequences: int | None = None
) -> torch.Tensor:
    """Ratio of two policies for each token, [N]; `log_ratio_N` is the difference of their log-probabilities.

    token: r_t (PPO, arXiv:1707.06347). sequence: the product over the token's sequence. geometric_mean: its
    |o|-th root (GSPO, arXiv:2507.18071, eq. 7). geometric_mean_token: the value of geometric_mean with the gradient of
    the token's own ratio (GSPO-token, eq. 14). `sequence_N` is the index of each token's sequence. `sequences` is
    their number S; None: one more than the largest index, which has to be read from the device.
    """
    if level == "geometric_mean_token":
        mean_N = _of_sequence(log_ratio_N.detach(), sequence_N, sequences, mean=True)
        log_ratio_N = mean_N.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO) + log_ratio_N - log_ratio_N.detach()
        return log_ratio_N.exp()
    if level != "token":
        log_ratio_N = _of_sequence(log_ratio_N, sequence_N, sequences, mean=level == "geometric_mean")
    return log_ratio_N.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def _of_sequence(values_N: torch.Tensor, sequence_N: torch.Tensor, sequences: int | None, mean: bool) -> torch.Tensor:
    """Sum or mean over each token's sequence, [N]."""
    if sequences is None:
        sequences = int(sequence_N.max()) + 1 if len(sequence_N) else 0
    zeros_S = values_N.new_zeros(sequences)
    sums_S = zeros_S.index_add(0, sequence_N, values_N)
    if not mean:
        return sums_S[sequence_N]
    # torch.bincount would count them too, but waits for the device to learn the largest index.
    return (sums_S / zeros_S.index_add(0, sequence_N, torch.ones_like(values_N)))[sequence_N]
