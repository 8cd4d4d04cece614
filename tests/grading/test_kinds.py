"""Gold answers are checked by kind."""

from __future__ import annotations

import pytest

from grpo_gsm8k.grading.answers import AnswerKind, Locale
from grpo_gsm8k.grading.kinds import refused_golds


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (AnswerKind.NUMBER, ["18", "-0.5"], ["1,8", "", "x"]),
        (AnswerKind.CHOICE, ["B"], ["5", "B or C", ""]),
        (AnswerKind.TEXT, ["Ankara"], ["", "$$"]),
        (AnswerKind.EXPRESSION, [r"\frac{1}{2}", "(1,2)", "18"], [r"\frac{1}{", "", "$$"]),
    ],
)
def test_refused_golds(kind: AnswerKind, good: list[str], bad: list[str]) -> None:
    refused = refused_golds(kind, [*good, *bad, *good], Locale.EN)
    assert list(refused) == bad
    assert all(reason.startswith("gold ") and "\n" not in reason for reason in refused.values())
