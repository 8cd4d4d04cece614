"""Quantiles of the rewards of one batch."""

from __future__ import annotations

import numpy as np
import pytest

from grpo_gsm8k.learner.rollout_metrics import reward_quantiles


def test_reward_quantiles_are_those_of_all_completions() -> None:
    """Of 0, 1, ..., 20 in any order, p % lie below p / 5."""
    rewards_GN = np.random.default_rng(0).permutation(21).reshape(7, 3).astype(float)
    assert reward_quantiles(rewards_GN) == pytest.approx(
        {f"rollout/reward_p{percent}": percent / 5 for percent in (10, 25, 50, 75, 90)}
    )
