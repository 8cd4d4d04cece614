"""A float32 policy with random weights, random samples, and a small configuration."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from cli import load_config
from grpo_gsm8k.config import Config
from grpo_gsm8k.learner.batching import Sample, rollout_sample
from grpo_gsm8k.learner.model import Policy, load_policy


@pytest.fixture
def policy(random_model: Path) -> Policy:
    return load_policy(random_model, small_config().learner)


@functools.cache  # composing takes half a second
def small_config(*overrides: str) -> Config:
    return load_config(["command=policy_gradient", "preset=cpu_demo", *overrides])


def random_groups(groups: int = 4, size: int = 3, seed: int = 0) -> list[list[Sample]]:
    """Samples of many lengths, the completions of a group behind one prompt; the second group's advantages are zero."""
    rng = np.random.default_rng(seed)
    made = []
    for g in range(groups):
        prompt = rng.integers(5, 90, size=int(rng.integers(3, 20))).astype(np.int32)
        group = []
        for _ in range(size):
            length = int(rng.integers(1, 16))
            group.append(
                rollout_sample(
                    prompt_ids=prompt,
                    completion_ids=rng.integers(1, 90, size=length).astype(np.int32),
                    behaviour_logprobs=-4.6 + 0.3 * rng.normal(size=length),
                    on_policy=np.ones(length, dtype=bool),
                    advantage=0.0 if g == 1 else float(rng.normal()),
                )
            )
        made.append(group)
    return made


def random_rewards(groups: int = 4, size: int = 3, seed: int = 0) -> np.ndarray:
    """Rewards [G, N]; those of the second group are all equal."""
    rewards = np.random.default_rng(seed).choice([0.0, 0.1, 1.0], size=(groups, size))
    rewards[0] = np.arange(size) / size
    rewards[1] = 1.0
    return rewards
