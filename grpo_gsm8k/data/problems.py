"""Problems, and JSONL files of them: one object `{"id", "question", "answer", "gold", "extra"}` per line."""

from __future__ import annotations

import codecs
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.data.gold import ENGLISH, Notation, check_stored, gold_of
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.problem import Problem, with_current_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def parse_problem(row: object, default_id: str, where: str, notation: Notation | None = ENGLISH) -> Problem:
    """Validate one row. `id` and `gold` are optional; the default gold number follows `####` in the answer.

    `notation` is that of the gold numbers; None for a row of `write_jsonl`, which has them in their stored form.
    Raises UserError that starts with `where` (file and line, or the source of the row).
    """
    if not isinstance(row, dict):
        raise UserError(f"{where}: a row must be an object with question and answer")
    row = with_current_names(row)
    question, answer = text_of(row, "question", where), text_of(row, "answer", where)
    row_id = row.get("id", default_id)
    if not isinstance(row_id, str | int) or isinstance(row_id, bool) or not str(row_id).strip():
        raise UserError(f"{where}: id must be a non-empty string or an integer")
    try:
        gold = gold_of(row, answer, notation)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    return Problem(str(row_id), question, answer, gold, row.get("extra") or {})


def read_jsonl(path: Path, id_prefix: str, notation: Notation | None = ENGLISH) -> list[Problem]:
    """Read problems in file order. A row without an id gets `<id_prefix>-<row index>`.

    Raises UserError, with file and line, for unreadable files, invalid JSON, invalid rows and duplicate ids.
    """
    problems: list[Problem] = []
    first_seen: dict[str, int] = {}
    for number, line in _lines(path):
        where = f"{path}:{number}"
        problem = parse_problem(_json(line, where), f"{id_prefix}-{len(problems):05d}", where, notation)
        if problem.id in first_seen:
            raise UserError(f"{where}: id {problem.id!r} is already used in line {first_seen[problem.id]}")
        first_seen[problem.id] = number
        problems.append(problem)
    return problems


def write_jsonl(path: Path, problems: Iterable[Problem]) -> None:
    """Write problems as JSONL; the same problems always give the same bytes.

    Raises UserError for a gold number that `read_jsonl` would refuse.
    """
    problems = list(problems)
    for problem in problems:
        try:
            check_stored(problem.gold)
        except ValueError as error:
            raise UserError(f"problem {problem.id}: {error}") from None
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(_row(problem), ensure_ascii=False) + "\n" for problem in problems)


def _row(problem: Problem) -> dict[str, Any]:
    row = asdict(problem)
    return row if row["extra"] else {key: value for key, value in row.items() if key != "extra"}


def json_objects(path: Path) -> Iterator[tuple[int, dict[object, object]]]:
    """Yield line number and object of every non-empty line. Raises UserError with file and line."""
    for number, line in _lines(path):
        value = _json(line, f"{path}:{number}")
        if not isinstance(value, dict):
            raise UserError(f"{path}:{number}: not a JSON object; write one object per line")
        yield number, value


def _lines(path: Path) -> list[tuple[int, bytes]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    # str.splitlines would also split at U+2028, which JSON strings may contain. Joined files have several BOMs.
    lines = (line.removeprefix(codecs.BOM_UTF8) for line in data.split(b"\n"))
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _json(line: bytes, where: str) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{where}: not UTF-8; save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON: {error}; write one object per line") from None


def text_of(row: dict[object, object], key: str, where: str) -> str:
    """Return the non-empty string at `key`. Raises UserError that starts with `where`."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {key} is missing, empty or not a string")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise UserError(f"{where}: {key} contains an unpaired surrogate, which UTF-8 cannot encode")
    return value
