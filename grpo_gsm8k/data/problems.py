"""Problems from rows, and JSONL files of prepared ones: an object `{"id", "question", "answer", "gold"}` per line."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.data.columns import Columns, checked_text, parts_of, value_at
from grpo_gsm8k.data.gold import ENGLISH, Notation, gold_of
from grpo_gsm8k.data.json_values import is_missing, listed
from grpo_gsm8k.data.multiple_choice import choices_of
from grpo_gsm8k.data.readers import Row, RowError, file_kind, json_lines, read_rows
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
    """Problems in the order of their rows, the number of rows left out by reason, and the first such row's error."""

    problems: list[Problem] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    first_error: str = ""


def problems_of(rows: Iterable[Row], id_prefix: str, rules: RowRules) -> ReadProblems:
    """Read all rows. One without an id gets `<id_prefix>-<row index>`. Raises UserError with the place of a bad row."""
    found: list[Problem] = []
    dropped, errors, places = Counter[str](), list[str](), dict[str, str]()
    repeats = _Repetitions()
    for index, row in enumerate(rows):
        if not _selected(row, rules.where):
            dropped["not selected by data.where"] += 1
            continue
        try:
            problem = parse_problem(row, f"{id_prefix}-{index:05d}", rules)
            if rules.drop and repeats.has(problem):
                dropped["repeated question"] += 1
                continue
            if problem.id in places:
                raise RowError(row.where, f"id {problem.id!r} is already used in {places[problem.id]}", "repeated id")
        except RowError as error:
            if not rules.drop:
                raise
            dropped[error.reason] += 1
            errors.append(str(error))
            continue
        repeats.add(problem)
        places[problem.id] = row.where
        found.append(problem)
    kept = [problem for problem in found if not repeats.contradicted(problem)]
    dropped += Counter({"repeated question, another gold answer": len(found) - len(kept)})
    return ReadProblems(kept, dropped, next(iter(errors), ""))


class _Repetitions:
    """Gold answers by question: some files repeat each row a hundred times, others contradict themselves."""

    def __init__(self) -> None:
        self._golds: dict[str, set[str]] = {}

    def has(self, problem: Problem) -> bool:
        """Whether the question was added before; notes its gold answer."""
        golds = self._golds.get(same_question(problem))
        if golds is not None:
            golds.add(problem.gold)
        return golds is not None

    def add(self, problem: Problem) -> None:
        self._golds.setdefault(same_question(problem), {problem.gold})

    def contradicted(self, problem: Problem) -> bool:
        """Whether a repetition of the question has another gold answer."""
        return len(self._golds[same_question(problem)]) > 1


def same_question(problem: Problem) -> str:
    """Return the question in the form in which questions are the same: spaces and line breaks do not matter."""
    return " ".join(problem.question.split())


def parse_problem(row: Row, default_id: str, rules: RowRules) -> Problem:
    """Validate one row; `id` is optional, and so is one of `answer` and `gold`. Raises RowError with its place."""
    parts = parts_of(row, rules.columns)
    question = parts.text("question")
    row_id = checked_id(parts.given.get("id", default_id), row.where)
    if "gold" in parts.given and is_missing(parts.given["gold"]):
        raise RowError(row.where, "gold is missing or empty")
    alone = "gold" in parts.given and "answer" not in parts.given
    answer = "" if alone else parts.text("answer")
    try:
        if rules.kind is AnswerKind.CHOICE:
            choices = choices_of(parts.extra.get("choices"))
            question, gold = choices.below(question), choices.letter(parts.given.get("gold", answer))
        else:
            gold = gold_of(parts.given, answer, rules.notation, rules.kind, named="gold" in rules.columns)
    except ValueError as error:
        raise RowError(row.where, str(error), f"no gold answer of the kind {rules.kind}") from None
    return Problem(row_id, question, gold if alone else answer, gold, parts.extra)


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
        file.writelines(
            json.dumps(_prepared_row(problem), ensure_ascii=False, allow_nan=False) + "\n" for problem in problems
        )


def json_objects(path: Path) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Yield line number and object of every non-empty line. Raises UserError with file and line."""
    for number, value in json_lines(path):
        if not isinstance(value, dict):
            raise UserError(f"{path}:{number}: not a JSON object; write one object per line")
        yield number, value


def text_of(row: dict[Any, Any], key: str, where: str) -> str:
    """Return the non-empty string at `key`. Raises UserError that starts with `where` and lists the keys."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {key} is missing, empty or not a string; columns: {listed(list(row))}")
    return checked_text(value, key, where)


def checked_id(value: object, where: str) -> str:
    """Return the id of a row as text. Raises RowError that starts with `where`."""
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        raise RowError(where, "id must be a non-empty string or an integer")
    return checked_text(str(value), "id", where)


def _prepared_row(problem: Problem) -> dict[str, Any]:
    row = asdict(problem)
    return row if row["extra"] else {key: value for key, value in row.items() if key != "extra"}


def _selected(row: Row, where: Mapping[str, Any]) -> bool:
    """Whether a row has one of the wanted values in every named column. Raises UserError if it lacks a column."""
    for column, wanted in where.items():
        try:
            value = value_at(row.values, column)
        except KeyError:
            columns = listed(list(row.values))
            raise UserError(f"{row.where}: no column {column!r}, which data.where names; columns: {columns}") from None
        if not any(_equal(value, other) for other in (wanted if isinstance(wanted, list) else [wanted])):
            return False
    return True


def _equal(value: object, wanted: object) -> bool:
    """Whether a value is the wanted one; a file of texts (CSV) has numbers as text."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return value == wanted or (isinstance(value, str) and value == str(wanted))
