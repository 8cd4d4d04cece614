"""Problems from rows, and JSONL files of prepared ones: an object `{"id", "question", "answer", "gold"}` per line."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.data.columns import Columns, Parts, parts_of
from grpo_gsm8k.data.gold import ENGLISH, Notation, gold_of, letter_of_choice
from grpo_gsm8k.data.readers import Row, file_kind, json_lines, read_rows
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import AnswerKind
from grpo_gsm8k.grading.problem import Problem, with_current_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class RowRules:
    """How rows become problems.

    `where` keeps the rows whose columns have these values; `drop`: leave out bad rows instead of stopping at the first.
    """

    notation: Notation = ENGLISH
    kind: AnswerKind = AnswerKind.NUMBER
    columns: Columns = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    drop: bool = False


@dataclass(frozen=True, slots=True)
class ReadProblems:
    """Problems in the order of their rows, and the number of rows left out by reason."""

    problems: list[Problem]
    dropped: Counter[str] = field(default_factory=Counter)


def problems_of(rows: Iterable[Row], id_prefix: str, rules: RowRules) -> ReadProblems:
    """Read all rows. One without an id gets `<id_prefix>-<row index>`. Raises UserError with the place of a bad row."""
    found = ReadProblems([])
    seen: dict[str, str] = {}
    questions: set[str] = set()
    for index, row in enumerate(rows):
        if not _selected(row, rules.where):
            found.dropped["not selected by data.where"] += 1
            continue
        try:
            problem = parse_problem(row, f"{id_prefix}-{index:05d}", rules)
            if problem.id in seen and not (rules.drop and problem.question in questions):
                raise UserError(f"{row.where}: id {problem.id!r} is already used in {seen[problem.id]}")
        except UserError as error:
            if not rules.drop:
                raise
            found.dropped[_reason(str(error), row.where)] += 1
            continue
        if rules.drop and problem.question in questions:  # here, because some files repeat each row a hundred times
            found.dropped["repeated question"] += 1
            continue
        questions.add(problem.question)
        seen[problem.id] = row.where
        found.problems.append(problem)
    return found


def parse_problem(row: Row, default_id: str, rules: RowRules) -> Problem:
    """Validate one row; `id` is optional, and so is one of `answer` and `gold`. Raises UserError with its place."""
    parts = parts_of(row, rules.columns)
    question = parts.text("question")
    row_id = parts.given.get("id", default_id)
    if not isinstance(row_id, str | int) or isinstance(row_id, bool) or not str(row_id).strip():
        raise UserError(f"{row.where}: id must be a non-empty string or an integer")
    gold = parts.given.get("gold")
    alone = "gold" in parts.given and "answer" not in parts.given
    answer = str(gold) if alone else parts.text("answer")
    try:
        if rules.kind is AnswerKind.CHOICE:
            question, gold = _with_choices(question, parts, answer)
            return Problem(str(row_id), question, answer, gold, parts.extra)
        found = gold_of(parts.given, answer, rules.notation, rules.kind)
        return Problem(str(row_id), question, answer, found, parts.extra)
    except ValueError as error:
        raise UserError(f"{row.where}: {error}") from None


def read_problems(path: Path, id_prefix: str, rules: RowRules | None = None) -> list[Problem]:
    """Read the problems of a file, whose name tells its kind (JSON lines unless it ends in .json, .csv or .parquet).

    Raises UserError with file and line.
    """
    return problems_of(read_rows(path, file_kind(path)), id_prefix, rules or RowRules()).problems


def read_prepared(path: Path) -> list[Problem]:
    """Read a file of `write_prepared`. Raises UserError with file and line."""
    problems = []
    for number, row in json_objects(path):
        try:
            problems.append(Problem(**with_current_names(row)))
        except TypeError:
            raise UserError(f"{path}:{number}: not a prepared problem: run command=data again") from None
    return problems


def write_prepared(path: Path, problems: Iterable[Problem]) -> None:
    """Write problems as JSONL; the same problems always give the same bytes."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(_prepared_row(problem), ensure_ascii=False) + "\n" for problem in problems)


def json_objects(path: Path) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Yield line number and object of every non-empty line. Raises UserError with file and line."""
    for number, value in json_lines(path):
        if not isinstance(value, dict):
            raise UserError(f"{path}:{number}: not a JSON object; write one object per line")
        yield number, value


def text_of(row: dict[Any, Any], key: str, where: str) -> str:
    """Return the non-empty string at `key`. Raises UserError that starts with `where`."""
    return Parts(where, row).text(key)


def _prepared_row(problem: Problem) -> dict[str, Any]:
    row = asdict(problem)
    return row if row["extra"] else {key: value for key, value in row.items() if key != "extra"}


def _with_choices(question: str, parts: Parts, answer: str) -> tuple[str, str]:
    """Return the question with its choices below it, and the letter of the right one."""
    choices = parts.extra.get("choices")
    if isinstance(choices, dict):  # {"text": [...], "label": [...]}, as in ARC
        choices = choices.get("text")
    texts = [str(choice) for choice in choices] if isinstance(choices, list) else []
    letter = letter_of_choice(parts.given.get("gold", answer), texts)
    listed = [f"{chr(ord('A') + index)}) {text}" for index, text in enumerate(texts)]
    return "\n".join([question, *listed]), letter


def _selected(row: Row, where: Mapping[str, Any]) -> bool:
    """Whether a row has one of the wanted values in every named column."""
    for column, wanted in where.items():
        if column not in row.values:
            raise UserError(
                f"{row.where}: no column {column!r}, which data.where names; columns: {', '.join(row.values)}"
            )
        if row.values[column] not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def _reason(message: str, where: str) -> str:
    """Return a message without its place and without quoted values, so that equal reasons are counted together."""
    return re.sub(r"'[^']*'", "...", message.removeprefix(f"{where}: ")).partition(";")[0]
