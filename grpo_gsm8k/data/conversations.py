"""Conversations for supervised fine-tuning: rows of `messages`, and tokens whose loss covers the assistant's turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_gsm8k.data.chat_template import TemplateRefusedError, render_chat
from grpo_gsm8k.data.problems import text_of
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.models import end_of_turn

if TYPE_CHECKING:
    from grpo_gsm8k.data.chat_template import Messages

_ROLES = ("system", "user", "assistant")
_KEYS = {"role", "content"}
_FIX = "use prompt/response rows, or a model.path with another chat template"


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns of one row, which end with the assistant's; `where` is its file and line."""

    id: str
    messages: Messages
    where: str


@dataclass(frozen=True, slots=True)
class RenderedPart:
    """A part of a rendered conversation, tokenized by itself; `trained` for an assistant's turn and its end token."""

    text: str
    trained: bool


def parse_conversation(row: dict[object, object], name: str, where: str) -> Conversation:
    """Validate a row of `messages`. Raises UserError that starts with `where`."""
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{where}: messages is not a list of at least one message")
    if row.get("tools"):
        raise UserError(f"{where}: tools are not supported: remove the column or the row")
    turns = [_message(message, f"{where}: messages[{index}]") for index, message in enumerate(messages)]
    _check_order([turn["role"] for turn in turns], where)
    return Conversation(name, turns, where)


def pieces_of(conversation: Conversation, tokenizer: Any) -> list[RenderedPart]:
    """Split the rendered conversation into context and trained pieces; it ends with the last assistant's end token.

    The context before an assistant's turn is exactly what an engine is given to generate that turn. Raises UserError
    with file and line if the template renders the earlier turns differently once later ones follow, or changes the
    text of an assistant's turn.
    """
    if not tokenizer.chat_template:
        raise UserError(f"{conversation.where}: messages need a chat template, and the tokenizer has none; {_FIX}")
    whole = _rendered(conversation, len(conversation.messages), tokenizer, opens=False)
    end = _end_text(tokenizer, conversation.where)
    pieces: list[RenderedPart] = []
    position = 0
    for index, message in enumerate(conversation.messages):
        if message["role"] != "assistant":
            continue
        prefix = _rendered(conversation, index, tokenizer, opens=True)
        if not whole.startswith(prefix) or len(prefix) < position:
            raise UserError(
                f"{conversation.where}: the chat template renders the turns before messages[{index}] differently once "
                f"later ones follow, so they are not what the model will be asked; {_FIX}"
            )
        turn = _turn(whole[len(prefix) :], message["content"], end)
        if turn is None:
            raise UserError(
                f"{conversation.where}: the chat template changes the text of messages[{index}], the assistant's "
                f"turn; {_FIX}"
            )
        pieces += [RenderedPart(whole[position : len(prefix)], trained=False), RenderedPart(turn + end, trained=True)]
        position = len(prefix) + len(turn) + len(end)
    return pieces


def encode_pieces(pieces: list[RenderedPart], tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Token ids int32 [T] of the pieces, each tokenized by itself, and which of them are trained, bool [T]."""
    encoded = [tokenizer.encode(piece.text, add_special_tokens=False) for piece in pieces]
    ids = np.asarray([token for part in encoded for token in part], dtype=np.int32)
    trained = np.repeat([piece.trained for piece in pieces], [len(part) for part in encoded])
    return ids, trained


def _message(message: object, where: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise UserError(f"{where} is not an object with role and content")
    if message.get("tool_calls") or message.get("function_call") or message.get("role") in ("tool", "function"):
        raise UserError(f"{where}: tool calls are not supported: remove the row")
    given = (str(key) for key, value in message.items() if value not in (None, "", [], {}))
    if unknown := sorted(set(given) - _KEYS):
        raise UserError(f"{where}: {unknown[0]} is unknown: a message has role and content")
    role = message.get("role")
    if role not in _ROLES:
        raise UserError(f"{where}: role is {role!r}: give system, user or assistant")
    if isinstance(message.get("content"), list):
        raise UserError(f"{where}: content is a list of parts: give one string")
    return {"role": str(role), "content": text_of(message, "content", where)}


def _check_order(roles: list[str], where: str) -> None:
    """Raise UserError unless the roles are an optional system message and turns of user and assistant."""
    if "system" in roles[1:]:
        raise UserError(f"{where}: messages[{roles.index('system', 1)}] is a system message, which must be the first")
    turns = roles[1:] if roles[0] == "system" else roles
    first = len(roles) - len(turns)
    for index, role in enumerate(turns):
        wanted = ("user", "assistant")[index % 2]
        if role != wanted:
            raise UserError(f"{where}: messages[{first + index}] is of the role {role}, expected {wanted}")
    if roles[-1] != "assistant":
        raise UserError(
            f"{where}: the last message is of the role {roles[-1]}, but only the assistant's train: remove it"
        )


def _end_text(tokenizer: Any, where: str) -> str:
    token = end_of_turn(tokenizer)
    if token is None:
        raise UserError(f"{where}: the chat template ends the assistant's turn without a special token; {_FIX}")
    return str(tokenizer.convert_ids_to_tokens(token))


def _rendered(conversation: Conversation, count: int, tokenizer: Any, opens: bool) -> str:
    """Render the first `count` messages, and open the assistant's turn if `opens`."""
    try:
        return render_chat(tokenizer, conversation.messages[:count], _FIX, add_generation_prompt=opens)
    except TemplateRefusedError as error:
        raise UserError(f"{conversation.where}: {error}") from None


def _turn(rest: str, content: str, end: str) -> str | None:
    """Return the assistant's text, which templates may trim; None unless `rest` is that text and its end token."""
    return next((text for text in (content, content.strip()) if rest.startswith(text + end)), None)
