"""Time and money limits with a fake clock."""

from __future__ import annotations

import pytest

from grpo_gsm8k.config import BudgetConfig
from grpo_gsm8k.orchestrator.budget import RunBudget
from grpo_gsm8k.preflight.cost import Estimate, refine

INITIAL = Estimate(step_s=60.0, updates=100, hours=2.0, usd=8.0, usd_per_hour=4.0)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def config(max_usd: float | None = None, max_hours: float | None = None, price: float | None = None) -> BudgetConfig:
    return BudgetConfig(max_usd=max_usd, max_hours=max_hours, usd_per_hour=price)


def test_hours_and_dollars_run_out() -> None:
    clock = Clock()
    hours, dollars = RunBudget(config(max_hours=0.5), INITIAL, clock), RunBudget(config(max_usd=1.0), INITIAL, clock)
    clock.seconds = 899.0
    assert (hours.used_up(), dollars.used_up()) == ("", "")
    clock.seconds = 900.0  # a quarter of an hour at 4 dollars
    assert (hours.used_up(), dollars.used_up()) == ("", "budget.max_usd=1 is used up")
    clock.seconds = 1800.0
    assert hours.used_up() == "budget.max_hours=0.5 is used up"


def test_without_a_budget_nothing_runs_out() -> None:
    clock = Clock()
    clock.seconds = 1e9
    assert RunBudget(config(), INITIAL, clock).used_up() == ""
    assert RunBudget(config(max_usd=1.0, price=1.0), None, clock).used_up() != ""


def test_ten_updates_refine_the_estimate() -> None:
    clock = Clock()
    budget = RunBudget(config(), INITIAL, clock)
    for step in range(1, 10):
        assert budget.observe(step, 30.0) == ""
    clock.seconds = 400.0
    assert "30 s per update" in budget.observe(10, 30.0)
    assert budget.observe(11, 30.0) == ""
    refined = budget.summary()["estimate"]["refined"]
    assert refined["hours"] == pytest.approx((400 + 90 * 30) / 3600)
    assert refined["usd"] == pytest.approx(4 * refined["hours"])
    assert refined["measured_updates"] == 10


def test_the_estimate_is_refined_for_the_learners_number_of_updates() -> None:
    clock = Clock()
    budget = RunBudget(config(), INITIAL, clock)
    budget.set_total(50)
    for step in range(1, 11):
        budget.observe(step, 30.0)
    refined = budget.summary()["estimate"]["refined"]
    assert (refined["updates"], refined["hours"]) == (50, pytest.approx(40 * 30 / 3600))


def test_the_first_update_is_not_measured() -> None:
    assert refine(INITIAL, [500.0, 20.0, 22.0], 3, 600.0).step_s == pytest.approx(21.0)
    assert refine(INITIAL, [500.0], 1, 600.0).step_s == 500.0


def test_a_resumed_run_has_fewer_updates_before_it() -> None:
    assert refine(INITIAL, [10.0] * 10, 60, 7200.0).hours == pytest.approx((7200 + 40 * 10) / 3600)


def test_summary_has_estimate_and_outcome() -> None:
    clock = Clock()
    budget = RunBudget(config(), INITIAL, clock)
    budget.observe(1, 50.0)
    clock.seconds = 3600.0
    summary = budget.summary()
    assert summary["estimate"]["initial"]["hours"] == 2.0
    assert summary["estimate"]["refined"] is None
    assert summary["outcome"] == {"step_s": 50.0, "updates": 1, "hours": 1.0, "usd": 4.0, "usd_per_hour": 4.0}
    assert RunBudget(config(), None, clock).summary()["estimate"] == {"initial": None, "refined": None}
