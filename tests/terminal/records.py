"""Records of a run, as metrics.jsonl has them, for tests of displays."""

from __future__ import annotations

from typing import Any

from grpo_gsm8k.terminal.samples import ShownSample


def update(number: int, **others: float | None) -> dict[str, Any]:
    """The record of a policy-gradient update."""
    return {
        "step": number,
        "train/reward_mean": number / 40,
        "train/loss": -1.234e-5,
        "train/kl_reference": 0.00123,
        "train/approx_kl": 4.24e-6,
        "train/entropy": 0.0672,
        "train/lr": 4e-5,
        "rollout/length_mean": 123.4,
        "rollout/tokens_per_s": 1841.2,
        "rollout/staleness_mean": 0.9,
        "rollout/staleness_max": 1.0,
        "time/actor_idle_frac": 0.154,
        "time/learner_idle_frac": 0.021,
        "time/step_s": 4.0,
        **others,
    }


def validation(version: int, accuracy: float | None) -> dict[str, Any]:
    """The record of a validation."""
    if accuracy is None:
        return {"val/version": version, "val/accuracy": None}
    low, high = accuracy - 0.04, accuracy + 0.04
    return {
        "val/version": version,
        "val/accuracy": accuracy,
        "val/accuracy_ci_low": low,
        "val/accuracy_ci_high": high,
    }


def sample(text: str = "3 + 4 = 7\n#### 7", version: int = 12, of: str = "update") -> ShownSample:
    """A completion with its reward."""
    return ShownSample(of, version, "What is 3 + 4?", "7", text, "7", 1.1)
