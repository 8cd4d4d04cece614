"""Trends, shares of time and settings of recorded runs."""

from __future__ import annotations

import numpy as np
import pytest

from grpo_gsm8k.diagnoses.run_record import (
    MIN_UPDATES,
    RunRecord,
    change_of,
    interval_change,
    machine_of,
    percent,
    validation_change,
)


@pytest.mark.parametrize(("length", "most"), [(10, 0.03), (30, 0.01), (300, 0.006)])
def test_noise_is_rarely_called_a_change(length: int, most: float) -> None:
    rng = np.random.default_rng(0)
    changes = [change_of(rng.normal(size=length).tolist()) for _ in range(2000)]
    assert np.mean(np.array(changes) != 0) < most


def test_a_trend_within_noise_is_a_change_of_the_thirds_means() -> None:
    values = np.arange(30) / 30 + np.random.default_rng(0).normal(scale=0.05, size=30)
    assert change_of(values.tolist()) == pytest.approx(values[20:].mean() - values[:10].mean())
    assert change_of((-values).tolist()) < -0.5
    assert change_of(values[: MIN_UPDATES - 1].tolist()) == 0
    assert change_of([1e300, -1e300] * 10) == 0


def test_a_share_of_time_is_weighted_by_seconds() -> None:
    updates = [{"step": n, "idle": 0.0, "time/step_s": 1.0} for n in range(9)] + [{"idle": 1.0, "time/step_s": 27.0}]
    assert RunRecord(updates).over_time("idle") == pytest.approx(0.75)
    assert RunRecord(updates[1:]).over_time("idle") is None


def test_values_that_are_not_numbers_are_left_out() -> None:
    record = RunRecord([{"a": value} for value in (1, None, float("nan"), "x", True, float("inf"), 2.5)])
    assert record.series("a") == [1.0, 2.5]


def test_right_completions_come_from_the_part_that_measures_them() -> None:
    assert RunRecord([{"train/reward_correct": 0.25, "train/reward_wrong": 0.9}]).right() == [0.25]
    assert RunRecord([{"train/reward_wrong": 0.9}]).right() == [pytest.approx(0.1)]
    assert RunRecord([{"train/reward_format": 0.9}]).right() == []


def test_settings_are_found_or_none() -> None:
    record = RunRecord([], config={"command": "sft", "sft": {"lr": 1e-3}, "actor": None})
    assert (record.setting("sft.lr"), record.lr_key) == (1e-3, "sft.lr")
    assert record.setting("actor.threads") is record.setting("learner.lr") is record.setting("sft.lr.more") is None


def test_validations_differ_if_their_intervals_are_apart() -> None:
    low, middle, high = ({"accuracy_ci_low": at, "accuracy_ci_high": at + 0.1} for at in (0.1, 0.19, 0.3))
    assert (interval_change(low, high), interval_change(high, low), interval_change(low, middle)) == (1, -1, 0)
    assert interval_change(low, {}) == validation_change([low]) == validation_change([]) == 0
    assert validation_change([low, middle, high]) == 1


def test_the_machine_is_that_of_the_last_start() -> None:
    starts = {"machine": {"usable_cores": 2}, "resumes": [{"machine": {"usable_cores": 8}}, {}]}
    assert machine_of(starts) == {"usable_cores": 8}
    assert machine_of({"resumes": []}) == machine_of(None) == {}


@pytest.mark.parametrize(("share", "text"), [(0, "0 %"), (0.004, "0.4 %"), (0.05, "5 %"), (0.996, "100 %")])
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text
