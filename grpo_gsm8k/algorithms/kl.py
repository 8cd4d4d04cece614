"""Divergence of the policy from a reference: estimators on sampled tokens, and an adaptive coefficient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from grpo_gsm8k.algorithms.ratios import MAX_LOG_RATIO

if TYPE_CHECKING:
    import torch

KlEstimator = Literal["k1", "k2", "k3"]


def kl_estimate(logprobs_N: torch.Tensor, reference_N: torch.Tensor, estimator: KlEstimator) -> torch.Tensor:
    """Estimate of KL(policy || reference) per sampled token, [N] (Schulman, "Approximating KL divergence", 2020).

    With d = log p - log p_ref: k1 = d, unbiased; k2 = d^2 / 2; k3 = exp(-d) - 1 + d, unbiased and never negative
    (GRPO, arXiv:2402.03300, eq. 4).
    """
    difference_N = logprobs_N - reference_N
    if estimator == "k1":
        return difference_N
    if estimator == "k2":
        return 0.5 * difference_N**2
    return (-difference_N).clamp(max=MAX_LOG_RATIO).exp() - 1 + difference_N


def adapted_coefficient(coefficient: float, measured: float, target: float, episodes: int, horizon: int) -> float:
    """Return the next coefficient of a controller that steers the divergence to `target` nats.

    c (1 + clip(measured / target - 1, -0.2, 0.2) episodes / horizon) (arXiv:1909.08593).
    """
    error = min(max(measured / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * episodes / horizon)
