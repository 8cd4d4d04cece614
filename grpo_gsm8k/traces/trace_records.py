"""Samples, their records in `raw.jsonl`, and the interface between the command and its teachers.

A producer gets the outstanding samples and delivers one `RawRecord` for each, in any order: `ApiProducer` from an API,
`local_teacher` from this project's engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from grpo_gsm8k.errors import LabError
from grpo_gsm8k.grading.problem import with_current_names

if TYPE_CHECKING:
    from grpo_gsm8k.grading.grader import Grader
    from grpo_gsm8k.grading.problem import Problem


@dataclass(frozen=True, slots=True)
class TraceSample:
    """One requested completion: number `number` (from 0) of a problem."""

    problem: Problem
    number: int

    @property
    def id(self) -> str:
        """Unique id: `<problem id>/<sample number>`."""
        return f"{self.problem.id}/{self.number}"


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts from the teacher; completion tokens include the reasoning."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One line of `raw.jsonl`. If `error` is set, the sample is not done, and the next run requests it again."""

    id: str
    problem_id: str
    sample: int
    question: str
    gold: str
    reasoning: str | None
    text: str
    number: str | None  # `Grade.value`; None: no readable answer at the configured marker
    correct: bool
    finish_reason: str | None
    truncated: bool
    usage: Usage | None
    cost_usd: Decimal
    latency_s: float | None  # of the answered request
    model: str
    error: str | None
    settled_requests: int  # how many of this sample's lines in sent.jsonl are included in cost_usd


@dataclass(frozen=True, slots=True)
class Answered:
    """A teacher's answer to one sample, or a failed attempt; then `error` is the reason."""

    text: str = ""
    reasoning: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    cost_usd: Decimal = Decimal(0)
    latency_s: float | None = None
    model: str = ""
    error: str | None = None
    settled_requests: int = 1


Deliver = Callable[[RawRecord], None]
Producer = Callable[[Sequence[TraceSample], Deliver], str | None]
"""Collects the samples and delivers their records. Returns why it stopped early, or None. Raises LabError."""


def make_record(sample: TraceSample, answered: Answered, grader: Grader) -> RawRecord:
    """Grade an answer in the prompt's format, and combine it with its problem."""
    problem = sample.problem
    graded = grader.grade(answered.text, problem.gold)
    return RawRecord(
        id=sample.id,
        problem_id=problem.id,
        sample=sample.number,
        question=problem.question,
        gold=problem.gold,
        reasoning=answered.reasoning,
        text=answered.text,
        number=graded.value,
        correct=graded.correct,
        finish_reason=answered.finish_reason,
        truncated=answered.finish_reason == "length",
        usage=answered.usage,
        cost_usd=answered.cost_usd,
        latency_s=answered.latency_s,
        model=answered.model,
        error=answered.error,
        settled_requests=answered.settled_requests,
    )


def to_json(record: RawRecord) -> dict[str, Any]:
    """Convert a record to its line. A cost has at most 15 digits, so the JSON number is exact."""
    return {**asdict(record), "cost_usd": float(record.cost_usd)}


_ADAPTER = TypeAdapter(RawRecord)


def from_json(line: dict[str, Any], where: str) -> RawRecord:
    """Convert a line to its record. Raises LabError that starts with `where`."""
    try:
        return _ADAPTER.validate_python(with_current_names(line))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise LabError(f"{where} is not a record of command=traces: {key}: {first['msg']}") from None
