"""First, middle and last update in training_stats.json."""

from __future__ import annotations

from typing import Any

import pytest

from grpo_gsm8k.tracking.training_stats import training_stats


def record(step: int) -> dict[str, Any]:
    return {"step": step, "train/loss": step / 10, "train/policy_loss": step / 100, "train/reward_mean": float(step)}


@pytest.mark.parametrize(("steps", "middle"), [([1, 2, 3], 2), ([1, 2, 3, 4], 2), ([1], 1), ([2, 1, 4, 5, 3], 3)])
def test_first_middle_and_last(steps: list[int], middle: int) -> None:
    found = training_stats([{"val/version": 0, "val/accuracy": 0.5}, *(record(step) for step in steps)], 7)
    assert (found["updates"], found["total_updates"]) == (len(steps), 7)
    assert [found[name]["update"] for name in ("first", "middle", "last")] == [1, middle, max(steps)]
    assert found["last"] == {
        "update": max(steps),
        "reward": float(max(steps)),
        "loss": max(steps) / 10,
        "policy_loss": max(steps) / 100,
        "value_loss": None,
    }


def test_fine_tuning_has_a_loss_only() -> None:
    assert training_stats([{"step": 1, "train/loss": 2.0}], 1)["first"] == {
        "update": 1,
        "reward": None,
        "loss": 2.0,
        "policy_loss": None,
        "value_loss": None,
    }


def test_a_run_without_updates() -> None:
    assert training_stats([], 3) == {"total_updates": 3, "updates": 0, "first": None, "middle": None, "last": None}
