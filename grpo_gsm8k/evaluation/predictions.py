"""`predictions.jsonl`: one line per completion, appended as results arrive; a resume drops incomplete groups."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.files.json_lines import JsonLines
from grpo_gsm8k.grading import scoring
from grpo_gsm8k.grading.answers import AnswerKind
from grpo_gsm8k.grading.completion import before_stop
from grpo_gsm8k.grading.problem import with_current_names
from grpo_gsm8k.grading.punctuation import right_without_punctuation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from grpo_gsm8k.evaluation.requests import Question
    from grpo_gsm8k.grading.answer_rules import AnswerRules
    from grpo_gsm8k.grading.answers import Grade
    from grpo_gsm8k.grading.grader import Grader
    from grpo_gsm8k.transport.protocol import Failed, GroupResult

FILE = "predictions.jsonl"
Key = tuple[str, str, float, str]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One graded completion. `failed`: the engine refused the request permanently, and it counts as wrong.

    `kind` is the strict verdict, `right_unpunctuated` that of `grading.punctuation`, for other answers than numbers
    the strict one again. Truncation is wrong in both.
    """

    model: str
    prompting: str
    temperature: float
    item_id: str
    sample: int
    question: str
    gold: str
    text: str
    extracted: str | None
    number: str | None  # `Grade.value`: canonical for numbers; answers of any kind are equal if their texts are
    kind: str
    right_unpunctuated: bool
    tokens: int
    mean_logprob: float | None
    failed: bool

    @property
    def key(self) -> Key:
        """The key of its question."""
        return self.model, self.prompting, self.temperature, self.item_id


def graded(question: Question, result: GroupResult, tokenizer: Any, grader: Grader) -> list[Prediction]:
    """Grade the completions of one question."""
    decoded = [tokenizer.decode(c.token_ids.tolist(), skip_special_tokens=True) for c in result.completions]
    texts = [before_stop(text, question.request.sampling.stop_texts) for text in decoded]
    grades = grader.grade_all(texts, question.problem.gold)
    lines = []
    for sample, (completion, text, grade) in enumerate(zip(result.completions, texts, grades, strict=True)):
        kind = scoring.classify(grade, completion.finish_reason == "length")
        wrong = kind in (scoring.ErrorKind.FORMAT, scoring.ErrorKind.LOGIC)
        unpunctuated = wrong and _is_right_unpunctuated(grade, question.problem.gold, grader.rules)
        lines.append(
            Prediction(
                **_question_fields(question, sample),
                text=text,
                extracted=grade.extracted,
                number=grade.value,
                kind=str(kind),
                right_unpunctuated=unpunctuated or kind == scoring.ErrorKind.CORRECT,
                tokens=len(completion.token_ids),
                # Further digits depend on the composition of the batch, and so on the number of engines.
                mean_logprob=round(float(completion.logprobs.mean()), 3) if len(completion.logprobs) else None,
                failed=False,
            )
        )
    return lines


def _is_right_unpunctuated(grade: Grade, gold: str, rules: AnswerRules) -> bool:
    is_number = rules.kind is AnswerKind.NUMBER
    return is_number and right_without_punctuation(grade.extracted, Decimal(gold), rules.locale)


def refused(question: Question, result: Failed) -> list[Prediction]:
    """Return wrong predictions for a question that the engine refused permanently."""
    return [
        Prediction(
            **_question_fields(question, sample),
            text=f"[{result.error}]",
            extracted=None,
            number=None,
            kind=str(scoring.ErrorKind.FORMAT),
            right_unpunctuated=False,
            tokens=0,
            mean_logprob=None,
            failed=True,
        )
        for sample in range(question.request.n)
    ]


def _question_fields(question: Question, sample: int) -> dict[str, Any]:
    return {
        "model": question.model,
        "prompting": question.prompting,
        "temperature": question.temperature,
        "item_id": question.problem.id,
        "sample": sample,
        "question": question.problem.question,
        "gold": question.problem.gold,
    }


class PredictionFile:
    """The predictions file of one evaluation. A kill loses at most the group that was being written."""

    def __init__(self, path: Path, samples: Mapping[Key, int]) -> None:
        """Open or create the file. Groups with fewer lines than `samples` are dropped, to be generated again."""
        self.path = path
        self._file = JsonLines(path)
        found = Counter(_key(line) for line in self._file.records())
        self.done = {key for key, count in found.items() if samples.get(key) == count}
        self._file.keep(lambda line: _key(line) in self.done)

    def add(self, predictions: Iterable[Prediction]) -> None:
        """Append the lines of one question."""
        for prediction in predictions:
            self._file.append(asdict(prediction))

    def predictions(self) -> list[Prediction]:
        """Return all lines so far."""
        return [Prediction(**with_current_names(line)) for line in self._file.records()]

    def finish(self, order: Mapping[Key, int]) -> list[Prediction]:
        """Sort the lines in the order of the questions, and close the file."""
        ordered = sorted(self.predictions(), key=lambda p: (order[p.key], p.sample))
        self._file.close()
        write_atomically(self.path, "".join(json.dumps(asdict(p)) + "\n" for p in ordered))
        return ordered


def _key(line: dict[str, Any]) -> Key:
    return line["model"], line["prompting"], line["temperature"], line["item_id"]
