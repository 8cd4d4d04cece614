"""Paired comparison of two answer sets on their common items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from grpo_gsm8k.evaluation.statistics import comparison
from grpo_gsm8k.report.material import AnswerSet, Key, Pair

SEED = 0  # of the bootstrap, fixed so that a report is reproducible


def compare_answers(before: AnswerSet, after: AnswerSet, family: str) -> Pair | None:
    """Compare two answer sets on their common items; None if there are none."""
    keys = [key for key in before.share_right if key in after.share_right]
    if not keys:
        return None
    old, new = ({"\0".join(key): answers.share_right[key] for key in keys} for answers in (before, after))
    found = comparison.compare(old, new, SEED)
    fixed = tuple(key for key in keys if _right(after, key) and not _right(before, key))
    broken = tuple(key for key in keys if _right(before, key) and not _right(after, key))
    return Pair(before, after, family, fixed, broken, found, found.p_value)


def correct_for_many(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """Return the pairs with Holm's correction of p, applied per family."""
    corrected: dict[int, float] = {}
    for family in {pair.family for pair in pairs}:
        members = [pair for pair in pairs if pair.family == family]
        p_values = comparison.holm([pair.found.p_value for pair in members])
        corrected |= {id(pair): p for pair, p in zip(members, p_values, strict=True)}
    return tuple(replace(pair, p_holm=corrected[id(pair)]) for pair in pairs)


def _right(answers: AnswerSet, key: Key) -> bool:
    return answers.answers[key].kind == "correct"
