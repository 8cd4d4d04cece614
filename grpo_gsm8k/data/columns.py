"""The parts of a problem in the columns of a row: `data.columns`, rows of messages, and rows made for verl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.problem import with_current_names

if TYPE_CHECKING:
    from grpo_gsm8k.data.readers import Row

PARTS = ("id", "question", "answer", "gold")
Columns = Mapping[Any, str | list[str]]  # by part


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a problem that a row has, by name, still unchecked; `extra` are its other columns."""

    where: str
    given: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return a non-empty text. Raises UserError that lists the columns of the row."""
        value = self.given.get(name)
        if not isinstance(value, str) or not value.strip():
            found = ", ".join(sorted({*self.given, *self.extra})) or "none"
            raise UserError(
                f"{self.where}: {name} is missing, empty or not a string; columns: {found}; "
                f"set data.columns.{name}=COLUMN if it has another name"
            )
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise UserError(f"{self.where}: {name} contains an unpaired surrogate, which UTF-8 cannot encode")
        return value


def parts_of(row: Row, columns: Columns) -> Parts:
    """Return the parts of a row. Raises UserError for a column of `columns` that the row lacks."""
    values = with_current_names(row.values)
    if "question" not in columns and "question" not in values:
        values = _from_chat(values, row.where)
    given: dict[str, Any] = {}
    used: set[str] = set()
    for part in PARTS:
        source = columns.get(part, part)
        names = [source] if isinstance(source, str) else source
        missing = [name for name in names if name not in values]
        if missing and part in columns:
            raise UserError(
                f"{row.where}: no column {missing[0]!r}, which data.columns.{part} names; columns: {', '.join(values)}"
            )
        if not missing:
            given[part] = values[names[0]] if len(names) == 1 else _joined(row.where, values, names)
            used.update(names)
    extra = {name: value for name, value in values.items() if name not in used and name != "extra"}
    inner = values.get("extra")  # of a prepared folder that serves as a source
    return Parts(row.where, given, {**extra, **inner} if isinstance(inner, dict) else extra)


def _joined(where: str, values: Mapping[str, Any], names: list[str]) -> str:
    wrong = [name for name in names if not isinstance(values[name], str)]
    if wrong:
        raise UserError(f"{where}: column {wrong[0]!r} is not a text, so it cannot be joined with others")
    return " ".join(values[name].strip() for name in names)


def _from_chat(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a row of `messages`, or of verl's `prompt` and `reward_model`, with the names of our parts."""
    if "messages" in values:
        turns = _turns(values["messages"], where, "messages")
        found = {**_one_problem(turns, where), **_last(turns, "assistant", "answer")}
        return {**{name: value for name, value in values.items() if name != "messages"}, **found}
    if "prompt" in values and isinstance(values.get("reward_model"), dict):
        prompt = values["prompt"]
        question = (
            {"question": prompt} if isinstance(prompt, str) else _one_problem(_turns(prompt, where, "prompt"), where)
        )
        gold = values["reward_model"].get("ground_truth")
        rest = {name: value for name, value in values.items() if name not in ("prompt", "extra_info")}
        info = values.get("extra_info")
        extra = dict(info) if isinstance(info, dict) else {}
        answer = {"answer": extra.pop("answer")} if isinstance(extra.get("answer"), str) else {}
        own = extra.pop("question", None)  # verl keeps the question without its instruction there
        question = {"question": own} if isinstance(own, str) and own.strip() else question
        return {**extra, **rest, **question, **answer, "gold": gold[0] if _single(gold) else gold}
    return values


def _turns(value: Any, where: str, column: str) -> list[tuple[str, str]]:
    """Return role and text of each message."""
    turns = value if isinstance(value, list) else []
    found = [
        (turn["role"], turn["content"])
        for turn in turns
        if isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
    ]
    if not found or len(found) < len(turns):
        raise UserError(f"{where}: {column} must be a list of messages, each with a role and a text as content")
    return found


def _one_problem(turns: list[tuple[str, str]], where: str) -> dict[str, Any]:
    """Return the question of a conversation with a single user turn, and its system text under `system`."""
    users = [text for role, text in turns if role == "user"]
    if len(users) != 1:
        raise UserError(
            f"{where}: {len(users)} user messages, but a problem has one question; to fine-tune on conversations, "
            "set preprocess.source=jsonl preprocess.path=FILE"
        )
    return {"question": users[0], **_last(turns, "system", "system")}


def _last(turns: list[tuple[str, str]], role: str, name: str) -> dict[str, Any]:
    texts = [text for found, text in turns if found == role]
    return {name: texts[-1]} if texts else {}


def _single(gold: Any) -> bool:
    return isinstance(gold, list) and len(gold) == 1
