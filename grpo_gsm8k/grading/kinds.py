"""Which gold answers are of a kind, for the check of a data set before anything is trained on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.grading.answer_rules import AnswerRules
from grpo_gsm8k.grading.answers import AnswerFormat, AnswerKind, Locale
from grpo_gsm8k.grading.expression_pool import ExpressionPool

if TYPE_CHECKING:
    from collections.abc import Sequence

_DESCRIPTIONS = {
    AnswerKind.NUMBER: "one number in English notation",
    AnswerKind.EXPRESSION: "an expression that math-verify reads",
    AnswerKind.CHOICE: "one letter",
    AnswerKind.TEXT: "a text of at most 1000 characters",
}


def refused_golds(kind: AnswerKind, golds: Sequence[str], locale: Locale = Locale.EN) -> dict[str, str]:
    """Return the reason for each gold answer that grading would refuse; expressions take milliseconds each."""
    if kind is AnswerKind.EXPRESSION:
        refused = _unreadable_expressions(golds)
    else:
        read = AnswerRules(AnswerFormat.HASH, kind, Locale.EN if kind is AnswerKind.NUMBER else locale).read
        refused = [gold for gold in dict.fromkeys(golds) if read(gold) is None]
    return {gold: f"gold {gold[:60]!r} is not {_DESCRIPTIONS[kind]}" for gold in refused}


def _unreadable_expressions(golds: Sequence[str]) -> list[str]:
    distinct = list(dict.fromkeys(golds))
    pool = ExpressionPool()
    try:
        return [gold for gold, v in zip(distinct, pool.verdicts(distinct, None), strict=True) if v.value is None]
    finally:
        pool.close()
