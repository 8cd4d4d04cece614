"""A float32 policy with random weights, random samples, and a small configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cli import load_config
from grpo_gsm8k.config import Config
from grpo_gsm8k.learner.batching import Sample
from grpo_gsm8k.learner.model import Policy, load_policy


@pytest.fixture
def policy(random_model: Path) -> Policy:
    return load_policy(random_model, "cpu", "float32")


def small_config(*overrides: str) -> Config:
    return load_config(["command=policy_gradient", "preset=cpu_demo", *overrides])


def random_groups(groups: int = 4, size: int = 3, seed: int = 0) -> list[list[Sample]]:
    """Samples of many lengths; the second group has advantages of zero."""
    rng = np.random.default_rng(seed)
    made = []
    for g in range(groups):
        prompt = rng.integers(5, 90, size=int(rng.integers(3, 20))).astype(np.int32)
        group = []
        for _ in range(size):
            length = int(rng.integers(1, 30))
            group.append(
                Sample(
                    prompt_ids=prompt,
                    completion_ids=rng.integers(1, 90, size=length).astype(np.int32),
                    behaviour_logprobs=(-4.6 + 0.3 * rng.normal(size=length)).astype(np.float32),
                    fresh=np.ones(length, dtype=bool),
                    advantage=0.0 if g == 1 else float(rng.normal()),
                )
            )
        made.append(group)
    return made
