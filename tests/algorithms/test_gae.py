"""GAE against a sum worked out by hand and against the definition."""

import numpy as np
import pytest

from grpo_gsm8k.algorithms.gae import gae, whiten


def test_three_tokens_by_hand() -> None:
    # rewards 0, 0, 1; values 0.5, 0.6, 0.7; gamma 0.9, lambda 0.5
    # deltas: 0 + 0.9 * 0.6 - 0.5 = 0.04; 0 + 0.9 * 0.7 - 0.6 = 0.03; 1 + 0 - 0.7 = 0.3
    # A_2 = 0.3; A_1 = 0.03 + 0.45 * 0.3 = 0.165; A_0 = 0.04 + 0.45 * 0.165 = 0.11425
    advantages, returns = gae(np.array([0.0, 0, 1]), np.array([0.5, 0.6, 0.7]), gamma=0.9, lam=0.5)
    assert advantages.tolist() == pytest.approx([0.11425, 0.165, 0.3], rel=1e-12)
    assert returns.tolist() == pytest.approx([0.61425, 0.765, 1.0], rel=1e-12)


def test_limits() -> None:
    rewards, values = np.array([0.1, -0.2, 1.0]), np.array([0.3, 0.4, 0.5])
    # lambda 1: the return is the sum of the rewards to come; lambda 0: the advantage is the temporal difference
    assert gae(rewards, values, 1.0, 1.0)[1].tolist() == pytest.approx([0.9, 0.8, 1.0])
    assert gae(rewards, values, 1.0, 0.0)[0].tolist() == pytest.approx([0.1 + 0.4 - 0.3, -0.2 + 0.5 - 0.4, 0.5])


def test_whitening_counts_tokens_not_completions() -> None:
    # tokens 1, 1, 1, 5: mean 2, variance (1 + 1 + 1 + 9) / 4 = 3
    first, second = whiten([np.array([1.0, 1, 1]), np.array([5.0])], eps=0.0)
    assert first.tolist() == pytest.approx([-1 / 3**0.5] * 3)
    assert second.tolist() == pytest.approx([3**0.5])
