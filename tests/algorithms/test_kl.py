"""Estimators of the KL, and the controller of its coefficient."""

import math

import pytest
import torch

from grpo_gsm8k.algorithms.kl import adapted_coefficient, kl_estimate


def test_by_hand() -> None:
    # d = log p - log p_ref = 0.5 and -0.5; k3 = e^-d - 1 + d
    logprobs, reference = torch.tensor([-1.0, -1.5]), torch.tensor([-1.5, -1.0])
    assert kl_estimate(logprobs, reference, "k1").tolist() == [0.5, -0.5]
    assert kl_estimate(logprobs, reference, "k2").tolist() == [0.125, 0.125]
    assert kl_estimate(logprobs, reference, "k3").tolist() == pytest.approx(
        [math.exp(-0.5) - 0.5, math.exp(0.5) - 1.5], rel=1e-6
    )


def test_k3_is_never_negative_and_finite() -> None:
    logprobs = torch.cat([torch.linspace(-30, 0, 1001), torch.tensor([-500.0, -1.0])])
    reference = torch.cat([torch.linspace(-3, -1, 1001), torch.tensor([-1.0, -500.0])])
    estimate = kl_estimate(logprobs, reference, "k3")
    assert (estimate >= 0).all()
    assert torch.isfinite(estimate).all()


def test_estimators_average_to_the_divergence() -> None:
    """Exactly, by summing over a distribution instead of sampling from it; k2 only nearly."""
    p, q = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.25, 0.45, 0.3])
    exact = (p * (p / q).log()).sum().item()
    for estimator, tolerance in (("k1", 1e-7), ("k3", 1e-7), ("k2", 1e-3)):
        mean = (p * kl_estimate(p.log(), q.log(), estimator)).sum().item()  # type: ignore[arg-type]
        assert mean == pytest.approx(exact, abs=tolerance)


def test_controller_by_hand() -> None:
    # at twice the target the error is clipped to 0.2: 1 + 0.2 * 100 / 1000
    assert adapted_coefficient(0.5, 0.2, 0.1, 100, 1000) == pytest.approx(0.5 * 1.02)
    assert adapted_coefficient(0.5, 0.09, 0.1, 100, 1000) == pytest.approx(0.5 * (1 - 0.1 * 0.1))
    assert adapted_coefficient(0.5, 0.1, 0.1, 100, 1000) == 0.5
