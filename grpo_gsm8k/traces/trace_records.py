"""What is asked and what comes back: one sample, and its line in `raw.jsonl`.

A producer is the seam between the command and a teacher: it is given the outstanding samples and hands over one
`RawRecord` for each, in any order, as it arrives. `collect.py` has one; a producer that samples from our own engine
gives the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from grpo_gsm8k.errors import LabError
from grpo_gsm8k.grading.answers import canonical, grade

if TYPE_CHECKING:
    from grpo_gsm8k.config import PromptConfig
    from grpo_gsm8k.data.problems import Problem


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion that is wanted: the `number`-th, from 0, of a problem."""

    problem: Problem
    number: int

    @property
    def id(self) -> str:
        """`<problem id>/<sample number>`."""
        return f"{self.problem.id}/{self.number}"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the teacher counted them; completion tokens include the reasoning."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One line of `raw.jsonl`. With `error` set the sample is not done, and is asked for again by the next run."""

    id: str
    problem_id: str
    sample: int
    question: str
    gold_number: str
    reasoning: str | None
    text: str
    number: str | None  # canonical; None: none can be read at the configured marker
    correct: bool
    finish_reason: str | None
    truncated: bool
    usage: Usage | None
    cost_usd: Decimal
    latency_s: float | None  # of the request that was answered
    model: str
    error: str | None
    settled_requests: int  # of this sample's lines in sent.jsonl: how many cost_usd accounts for


@dataclass(frozen=True, slots=True)
class Answered:
    """A teacher's answer to one sample, or what was left of the attempt: then `error` says why."""

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
Producer = Callable[[Sequence[Sample], Deliver], str | None]
"""Asks for the samples and delivers their records. Returns why it stopped early, or None; raises LabError."""


def make_record(sample: Sample, answered: Answered, prompt: PromptConfig) -> RawRecord:
    """Grade an answer by the prompt's format and put it beside its problem."""
    problem = sample.problem
    graded = grade(answered.text, problem.gold_number, prompt.answer_format, prompt.locale)
    return RawRecord(
        id=sample.id,
        problem_id=problem.id,
        sample=sample.number,
        question=problem.question,
        gold_number=problem.gold_number,
        reasoning=answered.reasoning,
        text=answered.text,
        number=None if graded.number is None else canonical(graded.number),
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
    """The line of a record. A cost has at most 15 digits, which a JSON number keeps exactly."""
    return {**asdict(record), "cost_usd": float(record.cost_usd)}


_ADAPTER = TypeAdapter(RawRecord)


def from_json(line: dict[str, Any], where: str) -> RawRecord:
    """Read a line back. Raises LabError that starts with `where`."""
    try:
        return _ADAPTER.validate_python(line)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise LabError(f"{where}: not a record of this command: {key}: {first['msg']}") from None
