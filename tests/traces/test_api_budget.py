"""The budget: exact amounts, reservations, and requests without an answer."""

from __future__ import annotations

from decimal import Decimal

import pytest

from grpo_gsm8k.errors import LabError
from grpo_gsm8k.grading.answer_rules import AnswerRules
from grpo_gsm8k.grading.answers import AnswerFormat
from grpo_gsm8k.grading.grader import Grader
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.traces.api_budget import ApiBudget, Charge, Prices, recorded_cost, sent_line, unanswered_cost
from grpo_gsm8k.traces.teacher import retry_after_s
from grpo_gsm8k.traces.trace_records import Answered, RawRecord, TraceSample, Usage, from_json, make_record, to_json

GRADER = Grader(AnswerRules(AnswerFormat.HASH))
PRICES = Prices(Decimal("0.28"), Decimal("0.42"))


def record(number: int, **changes: object) -> RawRecord:
    problem = Problem("p", "1 + 1?", "", "2")
    return make_record(TraceSample(problem, number), Answered(**changes), GRADER)  # type: ignore[arg-type]


def test_a_charge_is_exact_and_survives_the_file() -> None:
    usage = Usage(1_234_567, 7)
    charge = PRICES.charge(usage)
    assert charge == Charge(1_234_574, Decimal("0.3456817"))
    made = record(0, usage=usage, cost_usd=charge.usd)
    assert from_json(to_json(made), "here") == made
    with pytest.raises(LabError, match="here is not a record"):
        from_json({"id": "x"}, "here")


def test_bytes_bound_tokens() -> None:
    assert PRICES.upper_bound(["ş" * 10], 100).tokens == 20 + 100 + 128


def test_reservations_count_until_they_are_settled() -> None:
    budget = ApiBudget(Decimal("1.00"), 1000, Charge(0, Decimal("0.40")))
    most = Charge(10, Decimal("0.30"))
    assert budget.fits(most)
    budget.reserve(most)
    assert budget.fits(most)  # exactly at the limit
    budget.reserve(most)
    assert not budget.fits(Charge(1, Decimal("0.000001")))
    budget.settle(most, Charge(5, Decimal("0.10")))
    assert budget.charged == Charge(5, Decimal("0.50"))
    assert budget.fits(Charge(1, Decimal("0.20")))
    assert not budget.fits(Charge(1, Decimal("0.200001")))
    assert not budget.fits(Charge(986, Decimal(0)))


def test_requests_without_a_record_are_charged_at_their_most() -> None:
    most = Charge(100, Decimal("0.0001"))
    sent = [sent_line(name, most) for name in ("p/0", "p/1", "p/1", "p/1", "p/2")]
    records = [record(0), record(1, settled_requests=2), record(3, error="refused")]
    assert unanswered_cost(records, sent) == Charge(200, Decimal("0.0002"))
    assert recorded_cost(records) == Charge()


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [("", 0), ("7", 7), ("1.5", 1.5), ("soon", 0), ("-3", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_retry_after(raw: str, seconds: float) -> None:
    assert retry_after_s({"retry-after": raw}) == seconds
    assert retry_after_s({}) == 0
