"""The one place that grades completions: extraction by the rules, then comparison by the kind of answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from grpo_gsm8k.grading.answers import AnswerKind, Grade, grade_number
from grpo_gsm8k.grading.expression_pool import ExpressionPool, refuse_bad_gold
from grpo_gsm8k.grading.expression_text import latex_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from grpo_gsm8k.grading.answer_rules import AnswerRules


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer without a verdict. `extracted` and `value` are those of `Grade`."""

    extracted: str | None
    value: str | None


class Grader:
    """Grades completions by fixed rules. Expressions are graded in child processes. Thread-safe."""

    def __init__(self, rules: AnswerRules) -> None:
        """No child starts before the first expression."""
        self.rules = rules
        self._expressions = ExpressionPool() if rules.kind is AnswerKind.EXPRESSION else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child processes."""
        if self._expressions is not None:
            self._expressions.close()

    @property
    def uses_children(self) -> bool:
        """Whether grading waits for child processes, so that it belongs in threads."""
        return self._expressions is not None

    def grade(self, text: str, gold: str) -> Grade:
        """Grade one completion. Raises ValueError or UserError for a gold answer that is not of the kind."""
        return self.grade_all([text], gold)[0]

    def grade_all(self, texts: Sequence[str], gold: str) -> list[Grade]:
        """Grade several completions of one problem; expressions at the same time."""
        found = [self._extract(text) for text in texts]
        if self._expressions is None:
            return [
                Grade(None, None, correct=False, well_formed=False, failed=True)
                if timed_out
                else self._grade(extracted, gold)
                for extracted, timed_out in found
            ]
        readable = [raw for raw, _ in found if raw is not None and latex_of(raw) is not None]
        verdicts = dict(zip(readable, self._expressions.verdicts(readable, gold), strict=True))
        if any(verdict.bad_gold for verdict in verdicts.values()):
            raise refuse_bad_gold(gold)
        grades = []
        for raw, timed_out in found:
            verdict = None if raw is None else verdicts.get(raw)
            if verdict is None:
                grades.append(Grade(raw, None, correct=False, well_formed=False, failed=timed_out))
            else:
                value, failed = verdict.value, verdict.failed is not None
                grades.append(Grade(raw, value, verdict.correct, well_formed=value is not None, failed=failed))
        return grades

    def read_all(self, texts: Sequence[str]) -> list[Reading]:
        """Extract and read the answers of several completions, without a gold answer."""
        extracted = [self._extract(text)[0] for text in texts]
        if self._expressions is None:
            return [Reading(raw, None if raw is None else self.rules.read(raw)) for raw in extracted]
        readable = [raw for raw in extracted if raw is not None and latex_of(raw) is not None]
        verdicts = dict(zip(readable, self._expressions.verdicts(readable, None), strict=True))
        return [Reading(raw, verdicts[raw].value if raw in verdicts else None) for raw in extracted]

    def _extract(self, text: str) -> tuple[str | None, bool]:
        """Return the raw answer, and whether the configured pattern took too long."""
        try:
            return self.rules.extract(text), False
        except TimeoutError:
            return None, True

    def _grade(self, extracted: str | None, gold: str) -> Grade:
        if self.rules.kind is AnswerKind.NUMBER:
            return grade_number(extracted, gold, self.rules.locale)
        expected = self.rules.read(gold)
        if expected is None:
            raise ValueError(f"the gold answer {gold[:60]!r} is not of answer_kind={self.rules.kind}")
        value = None if extracted is None else self.rules.read(extracted)
        correct = value == expected
        return Grade(extracted, gold if correct else value, correct, well_formed=value is not None)
