"""Losses over pairs, and their derivatives, against the formulas of the papers written out pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from grpo_gsm8k.algorithms.advantages import Scores, preference
from grpo_gsm8k.algorithms.preferences import PairLoss, pair_losses

SCORES = [0.3, -1.2, 2.0, 0.0, -0.4]


def derived(scores: torch.Tensor, order: list[float], beta: float, kind: str) -> torch.Tensor:
    """The mean over all ordered pairs of completions."""
    losses = []
    for i, better in enumerate(order):
        for j, worse in enumerate(order):
            if better > worse:
                h = scores[i] - scores[j]
                losses.append(torch.log(1 + torch.exp(-beta * h)) if kind == "sigmoid" else (h - 0.5 / beta) ** 2)
    return sum(losses, torch.zeros((), dtype=torch.float64)) / len(losses)


@pytest.mark.parametrize("kind", ["sigmoid", "ipo"])
@pytest.mark.parametrize("order", [[1, 2, 2, 1, 1], [3, 1, 2, 5, 4], [1, 1, 1, 1, 2]])
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_loss_and_gradient_are_those_of_the_formula(kind: PairLoss, order: list[float], beta: float) -> None:
    scores = torch.tensor(SCORES, dtype=torch.float64, requires_grad=True)
    loss = derived(scores, order, beta, kind)
    loss.backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    found = pair_losses(np.array(SCORES), np.array(order, dtype=float), beta, kind)
    assert found.loss == pytest.approx(loss.item(), rel=1e-12)
    assert found.gradient_N == pytest.approx(scores.grad.numpy(), rel=1e-12, abs=1e-15)
    assert found.pair_losses_P.mean() == pytest.approx(found.loss)


def test_two_completions_are_the_pair_of_online_dpo() -> None:
    """TRL's: -log sigmoid(beta (log pi/ref of the chosen one - that of the rejected one))."""
    found = pair_losses(np.array([0.5, -0.25]), np.array([1.0, 2.0]), 0.1, "sigmoid")
    assert found.margins_P.tolist() == [-0.75]
    assert found.loss == pytest.approx(-math.log(1 / (1 + math.exp(0.1 * 0.75))))


def test_a_group_without_preferences_has_no_loss() -> None:
    found = pair_losses(np.array(SCORES), np.ones(5), 0.1, "ipo")
    assert found.loss == 0
    assert not found.gradient_N.any()
    assert not len(found.margins_P)


def test_far_margins_stay_finite() -> None:
    found = pair_losses(np.array([1e5, -1e5]), np.array([1.0, 2.0]), 1.0, "sigmoid")
    assert found.loss == pytest.approx(2e5)
    assert found.gradient_N.tolist() == [1.0, -1.0]


def test_only_the_order_of_rewards_counts() -> None:
    rewards = np.array([[0.0, 0.5, 1.0, 0.5], [1.0, 1.0, 1.0, 1.0], [-3.0, 0.2, 0.1, -3.0]])
    ranks = preference(Scores(rewards, np.ones((3, 4)), 1e-6))
    assert ranks.tolist() == [[1, 2, 3, 2], [0, 0, 0, 0], [1, 3, 2, 1]]
