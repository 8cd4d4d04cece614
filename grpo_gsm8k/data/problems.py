"""Problems, and JSONL files of them: one object `{"id", "question", "answer", "gold_number"}` per line."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import Locale, canonical, gsm8k_gold, parse_number
from grpo_gsm8k.grading.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def parse_problem(row: object, default_id: str, where: str) -> Problem:
    """Validate one row. `id` and `gold_number` are optional; the default gold number follows `####` in the answer.

    Raises UserError that starts with `where` (file and line, or the source of the row).
    """
    if not isinstance(row, dict):
        raise UserError(f"{where}: a row must be an object with question and answer")
    question, answer = text_of(row, "question", where), text_of(row, "answer", where)
    row_id = row.get("id", default_id)
    if not isinstance(row_id, str | int) or isinstance(row_id, bool) or not str(row_id).strip():
        raise UserError(f"{where}: id must be a non-empty string or an integer")
    return Problem(str(row_id), question, answer, _gold(row, answer, where))


def read_jsonl(path: Path, id_prefix: str) -> list[Problem]:
    """Read problems in file order. A row without an id gets `<id_prefix>-<row index>`.

    Raises UserError, with file and line, for unreadable files, invalid JSON, invalid rows and duplicate ids.
    """
    problems: list[Problem] = []
    first_seen: dict[str, int] = {}
    for number, line in _lines(path):
        where = f"{path}:{number}"
        problem = parse_problem(_json(line, where), f"{id_prefix}-{len(problems):05d}", where)
        if problem.id in first_seen:
            raise UserError(f"{where}: id {problem.id!r} is already used in line {first_seen[problem.id]}")
        first_seen[problem.id] = number
        problems.append(problem)
    return problems


def write_jsonl(path: Path, problems: Iterable[Problem]) -> None:
    """Write problems as JSONL; the same problems always give the same bytes."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems)


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
    # str.splitlines would also split at U+2028, which JSON strings may contain.
    return [(number, line) for number, line in enumerate(data.split(b"\n"), start=1) if line.strip()]


def _json(line: bytes, where: str) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{where}: not UTF-8") from None
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


def _gold(row: dict[object, object], answer: str, where: str) -> str:
    if "gold_number" not in row:
        try:
            return gsm8k_gold(answer)
        except ValueError as error:
            raise UserError(f"{where}: {error}; end the answer with '#### <number>'") from None
    number = parse_number(str(row["gold_number"]), Locale.EN)
    if number is None:
        raise UserError(f"{where}: gold_number {str(row['gold_number'])[:60]!r} is not one number")
    return canonical(number)
