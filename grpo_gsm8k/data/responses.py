"""Training texts: the data set's own answers, a teacher's traces, or any JSONL of responses, conversations or texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.data.conversations import Conversation, parse_conversation
from grpo_gsm8k.data.json_values import listed
from grpo_gsm8k.data.preference_rows import ConversationPair, PairText, parse_pair
from grpo_gsm8k.data.prepare import load_split
from grpo_gsm8k.data.problems import checked_id, json_objects, text_of
from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.data.prepare import DataFolder
    from grpo_gsm8k.grading.answer_rules import AnswerRules
    from grpo_gsm8k.grading.problem import Problem

_KINDS = ("messages", "response", "text", "chosen")  # of a row in a JSONL file; each has its own key
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")


@dataclass(frozen=True, slots=True)
class TrainingText:
    """A question and the target response, both as plain text."""

    id: str
    question: str
    response: str


@dataclass(frozen=True, slots=True)
class WholeText:
    """A text without a prompt, all of which is trained on."""

    id: str
    text: str


TrainingRow = TrainingText | Conversation | WholeText | PairText | ConversationPair


def answer_in(row: TrainingRow) -> str | None:
    """Return the text that should end in an answer: the response, or the last turn; None for a whole text."""
    match row:
        case TrainingText():
            return row.response
        case PairText():
            return row.chosen
        case ConversationPair():
            return row.chosen.messages[-1]["content"]
        case Conversation():
            return row.messages[-1]["content"]
        case WholeText():
            return None


def training_texts(config: Config, data: DataFolder) -> tuple[str, Sequence[TrainingRow]]:
    """Return the name of the configured source and its texts. Raises UserError if there are none."""
    source, path = config.preprocess.source, config.preprocess.path
    file = "pairs.jsonl" if source == "pairs" else "train.jsonl"
    traces = config.artifacts / config.traces.folder / file
    if source == "auto":
        source = "traces" if traces.is_file() else "main"
    if source in ("main", "socratic"):
        _check_kind(config, source)
        return "answers", own_answers(config, load_split(data, "train"))
    if path is None:
        path = traces
        if not path.is_file():
            fix = "with traces.pairs=N" if source == "pairs" else "first, or set preprocess.source=main"
            raise UserError(f"{path} is missing: run command=traces {fix}")
    texts = read_texts(path)
    if not texts:
        if source == "pairs":
            raise UserError(f"{path} is empty: no problem has both a right and a wrong trace; raise samples_per_prompt")
        raise UserError(f"{path} is empty: write lines with a prompt and a response, with messages, or with a text")
    return str(path), texts


def own_answers(config: Config, problems: list[Problem]) -> list[TrainingText]:
    """Return the data set's worked answers, each ending with the gold answer in the prompt's answer format."""
    if problems and all(problem.answer.strip() == problem.gold for problem in problems):
        raise UserError(
            f"data.folder={config.data.folder} has no worked answers: collect traces (command=traces), or set "
            "preprocess.source=jsonl preprocess.path=FILE"
        )
    rules = config.prompt.answer_rules
    return [
        TrainingText(p.id, p.question, worked_answer(p, rules, calculator=config.preprocess.calculator))
        for p in problems
    ]


def worked_answer(problem: Problem, rules: AnswerRules, calculator: bool) -> str:
    """Return the steps of a GSM8K answer and the gold answer in the prompt's format; `calculator` keeps `<<48/2=24>>`.

    Raises UserError if the format does not tell how an answer is written.
    """
    try:
        last_line = rules.marked(problem.gold)
    except ValueError as error:
        raise UserError(str(error)) from None
    steps, marker, _ = problem.answer.rpartition("####")
    steps = (steps if marker else problem.answer).rstrip()
    if not calculator:
        steps = _CALCULATOR.sub("", steps)
    return "\n".join(part for part in (steps, last_line) if part)


def read_texts(path: Path) -> list[TrainingRow]:
    """Read lines of `{"prompt", "response"}`, `{"prompt", "chosen", "rejected"}`, `{"messages"}` or `{"text"}`.

    Each may have an `id`.

    One file may hold lines of several kinds. Raises UserError with file and line.
    """
    texts = []
    seen: dict[str, int] = {}
    for number, row in json_objects(path):
        where = f"{path}:{number}"
        name = checked_id(row.get("id", f"line-{number}"), where)
        if name in seen:
            raise UserError(f"{where}: id {name!r} is already used in line {seen[name]}")
        seen[name] = number
        texts.append(_training_row(row, name, where))
    return texts


def _training_row(row: dict[object, object], name: str, where: str) -> TrainingRow:
    kinds = [key for key in _KINDS if row.get(key) is not None]
    if len(kinds) > 1:
        raise UserError(f"{where}: {' and '.join(kinds)} in one row: give one of them")
    if kinds == ["messages"]:
        return parse_conversation(row, name, where)
    if kinds == ["text"]:
        if row.get("prompt") is not None:
            raise UserError(f"{where}: prompt and text in one row: give prompt and response, or text alone")
        return WholeText(name, text_of(row, "text", where))
    if kinds == ["chosen"]:
        return parse_pair(row, name, where)
    if row.get("rejected") is not None:
        raise UserError(f"{where}: rejected without chosen: a pair has prompt, chosen and rejected")
    if not kinds and row.get("prompt") is None:
        kinds_of_rows = "prompt and response, or prompt, chosen and rejected, or messages, or text"
        raise UserError(f"{where}: columns {listed(list(row))}: a row has {kinds_of_rows}")
    return TrainingText(name, text_of(row, "prompt", where), text_of(row, "response", where))


def _check_kind(config: Config, source: str) -> None:
    """Raise UserError unless the loaded config of GSM8K is the requested one: only `data.name` tells them apart."""
    if config.data.source == "hub" and config.data.name != source:
        raise UserError(
            f"preprocess.source={source}, but data.name={config.data.name}: set data={_GROUPS[source]} or "
            f"preprocess.source={config.data.name}"
        )


_GROUPS = {"main": "gsm8k", "socratic": "gsm8k_socratic"}
