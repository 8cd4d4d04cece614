"""Rows of chat messages, and rows made for verl, as the parts of a problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from grpo_gsm8k.data.readers import Row, RowError

_ROLES = ("system", "developer", "user", "assistant")
_FINE_TUNE = "to fine-tune on conversations, set preprocess.source=jsonl preprocess.path=FILE"


@dataclass(frozen=True, slots=True)
class ChatParts:
    """Parts of a problem by name, the columns they are from, and what else was found there."""

    parts: dict[str, Any] = field(default_factory=dict)
    used: frozenset[str] = frozenset()
    extra: dict[str, Any] = field(default_factory=dict)


def is_conversation(value: object) -> bool:
    """Whether a value is a list of messages."""
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) and "role" in turn for turn in value)


def chat_parts(row: Row, question: str | None) -> ChatParts:
    """Return the parts in the messages of a row, and in verl's `reward_model` and `extra_info`.

    `question` is the column of the question, None if the row has none of that name. Raises RowError.
    """
    verl = "question" not in row.values and "prompt" in row.values and isinstance(row.values.get("reward_model"), dict)
    column = question or next((name for name in ("messages", "prompt") if name in row.values), "")
    if not question and column == "prompt" and not verl:
        column = ""
    found, extra, used = dict[str, Any](), dict[str, Any](), set[str]()
    value = row.values.get(column)
    if (column == "messages" and not question) or is_conversation(value):
        found, extra = _problem(value, column, row)
        used.add(column)
    elif verl and column == "prompt":
        found = {"question": value}
        used.add(column)
    if verl:
        verl_found, info = _verl(row, named=question is not None)
        found, extra = found | verl_found, extra | info
        used |= {"extra_info"} if isinstance(row.values.get("extra_info"), dict) else set()
    return ChatParts(found, frozenset(used), extra)


def _verl(row: Row, named: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parts in verl's columns, and the rest of `extra_info`.

    The question in `extra_info` is the one without the instruction of the prompt, so it is preferred to the prompt
    unless data.columns names that.
    """
    model: Mapping[str, Any] = row.values["reward_model"]
    if "ground_truth" not in model:
        raise RowError(row.where, "reward_model has no ground_truth: set +data.columns.gold=COLUMN")
    gold = model["ground_truth"]
    found = {"gold": gold[0] if isinstance(gold, list) and len(gold) == 1 else gold}
    info = row.values.get("extra_info")
    rest = dict(info) if isinstance(info, dict) else {}
    for part in ("answer",) if named else ("question", "answer"):
        if isinstance(rest.get(part), str) and rest[part].strip():
            found[part] = rest.pop(part)
    return found, {f"extra_info.{name}" if name in row.values else name: value for name, value in rest.items()}


def _problem(messages: Any, column: str, row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return question and answer of a conversation with one user turn, and its system text. Raises RowError."""
    if not is_conversation(messages):
        reason = f"{column} must be a list of messages, each with a role and a text as content"
        raise RowError(row.where, reason)
    turns = [_turn(message, row.where, f"{column}[{index}]") for index, message in enumerate(messages)]
    roles = ["system" if role == "developer" else role for role, _ in turns]
    users = roles.count("user")
    if users != 1:
        reason = f"{users} user messages, but a problem has one question; {_FINE_TUNE}"
        raise RowError(row.where, reason)
    head = roles[: roles.index("user")]
    tail = roles[roles.index("user") + 1 :]
    if head not in ([], ["system"]) or tail not in ([], ["assistant"]):
        message = (
            f"{column} has the roles {', '.join(roles[:8])}: a problem is one user turn and at most one answer to it"
        )
        raise RowError(row.where, f"{message}, after at most one system turn", f"{column} has other roles")
    texts = dict(zip(roles, (text for _, text in turns), strict=True))
    parts = {"question": texts["user"], **({"answer": texts["assistant"]} if tail else {})}
    name = f"{column}.system" if "system" in row.values else "system"
    return parts, {name: texts["system"]} if head else {}


def _turn(message: dict[str, Any], where: str, name: str) -> tuple[str, str]:
    role = message["role"]
    if role not in _ROLES:
        message_text = f"{name}.role is {str(role)[:40]!r}: a problem has the roles {', '.join(_ROLES)}"
        raise RowError(where, message_text, "a message has another role")
    if message.get("tool_calls") or message.get("function_call"):
        raise RowError(where, f"{name} has tool calls, which problems cannot have", "a message has tool calls")
    content = message.get("content")
    if isinstance(content, list) and content and all(_is_text(part) for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        reason = "content is not text; each message has a role and a text as content"
        raise RowError(where, f"{name}.{reason}", "the content of a message is not text")
    return role, content


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
