"""The parts of a problem in the columns of a row: those of `data.columns`, of our own names, of messages or of verl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from grpo_gsm8k.data.chat_rows import ChatParts, chat_parts, is_conversation
from grpo_gsm8k.data.json_values import is_missing, json_value, kind_name, listed, refuse_surrogates
from grpo_gsm8k.data.readers import Row, RowError
from grpo_gsm8k.grading.problem import with_current_names

PARTS = ("id", "question", "answer", "gold")
Columns = Mapping[Any, str | list[str]]  # by part


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a problem that a row has, by name, still unchecked; `extra` are its other columns, as JSON."""

    where: str
    given: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()

    def text(self, name: str) -> str:
        """Return a non-empty text. Raises RowError that lists the columns of the row if there is none."""
        if name not in self.given:
            message = f"{name} is missing; columns: {listed(self.columns)}; set +data.columns.{name}=COLUMN"
            raise RowError(self.where, message, f"{name} is missing")
        fix = "; a number is a gold answer: set +data.columns.gold=answer" if name == "answer" else ""
        return checked_text(self.given[name], name, self.where, fix)


def checked_text(value: object, name: str, where: str, fix: str = "") -> str:
    """Return a text that is not blank and can be written. Raises RowError that starts with `where`."""
    if is_missing(value):
        raise RowError(where, f"{name} is missing or empty")
    if not isinstance(value, str):
        raise RowError(where, f"{name} is {kind_name(value)}, not text{fix}", f"{name} is not text")
    try:
        refuse_surrogates(value, name)
    except ValueError as error:
        raise RowError(where, str(error)) from None
    return value


def parts_of(row: Row, columns: Columns) -> Parts:
    """Return the parts of a row. Raises RowError for a column of `columns` that the row lacks."""
    row = Row(row.where, with_current_names(row.values))
    chat = _chat(row, columns)
    known = {**chat.extra, **row.values}
    named = {name for source in columns.values() for name in ([source] if isinstance(source, str) else source)}
    given: dict[str, Any] = {}
    used = {*named, *chat.used}
    for part in PARTS:
        if part in columns and not (part == "question" and "question" in chat.parts and columns[part] in chat.used):
            given[part] = _named(row.where, known, part, columns[part])
        elif part in chat.parts:
            given[part] = chat.parts[part]
            _refuse_two(row, part, given[part], named)
        elif part in row.values and (part not in named or part == "gold"):  # a gold answer may be named as the answer
            given[part] = row.values[part]
            used.add(part)
    return Parts(row.where, given, _extra(row, chat, used), tuple(map(str, row.values)))


def value_at(values: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column, or of a path into one, as in `reward_model.ground_truth`. Raises KeyError."""
    if name in values:
        return values[name]
    found: Any = values
    for step in name.split("."):
        if not isinstance(found, Mapping):
            raise KeyError(name)
        found = found[step]
    return found


def _chat(row: Row, columns: Columns) -> ChatParts:
    question = columns.get("question", "question" if "question" in row.values else None)
    return ChatParts() if isinstance(question, list) else chat_parts(row, question)


def _named(where: str, values: Mapping[str, Any], part: str, source: str | list[str]) -> Any:
    """Return the value of a column, or the joined texts of several."""
    names = [source] if isinstance(source, str) else source
    found = []
    for name in names:
        try:
            found.append(value_at(values, name))
        except KeyError:
            message = f"no column {name!r}, which data.columns.{part} names; columns: {listed(list(values))}"
            raise RowError(where, message, f"no column {name}") from None
    if isinstance(source, str):
        return found[0]
    return " ".join(
        checked_text(value, f"column {name}", where).strip() for name, value in zip(names, found, strict=True)
    )


def _refuse_two(row: Row, part: str, value: object, named: set[str]) -> None:
    """Raise RowError if a column of the part's own name has another value than the messages have."""
    own = row.values.get(part)
    if part in row.values and part not in named and own != value and not is_conversation(own):
        fix = f"set +data.columns.{part}={part} or +data.columns.gold={part}, or remove the column"
        raise RowError(row.where, f"{part} is both a column and in the messages: {fix}", f"{part} occurs twice")


def _extra(row: Row, chat: ChatParts, used: set[str]) -> dict[str, Any]:
    """Return the other columns as JSON values."""
    extra = {name: value for name, value in row.values.items() if name not in used}
    inner = extra.pop("extra", None)  # of a prepared folder that serves as a source
    if isinstance(inner, dict):
        extra |= {f"extra.{name}" if name in extra else name: value for name, value in inner.items()}
    elif "extra" in row.values and "extra" not in used:
        extra["extra"] = inner
    extra |= {name: value for name, value in chat.extra.items() if name not in used}
    try:
        return {json_value(name, name): json_value(value, name) for name, value in extra.items()}
    except ValueError as error:
        raise RowError(row.where, str(error), "a column is not JSON") from None
