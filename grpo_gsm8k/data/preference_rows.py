"""Rows of a better and a worse response to one prompt, as texts or as conversations that differ in their last turn."""

from __future__ import annotations

from dataclasses import dataclass

from grpo_gsm8k.data.conversations import Conversation, parse_conversation
from grpo_gsm8k.data.problems import text_of
from grpo_gsm8k.errors import UserError


@dataclass(frozen=True, slots=True)
class PairText:
    """A question with a better and a worse response."""

    id: str
    question: str
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class ConversationPair:
    """Two conversations with the same turns but the last, the assistant's."""

    id: str
    chosen: Conversation
    rejected: Conversation


def parse_pair(row: dict[object, object], name: str, where: str) -> PairText | ConversationPair:
    """Validate a row with `chosen`: texts, or lists of messages, whose first ones may be in `prompt`.

    Raises UserError that starts with `where`.
    """
    if not isinstance(row.get("chosen"), list) and not isinstance(row.get("rejected"), list):
        question, chosen, rejected = (text_of(row, key, where) for key in ("prompt", "chosen", "rejected"))
        return PairText(name, question, chosen, rejected)
    better, worse = (_conversation(row, side, name, where) for side in ("chosen", "rejected"))
    if better.messages[:-1] != worse.messages[:-1]:
        raise UserError(f"{where}: chosen and rejected differ before their last message: they need the same prompt")
    return ConversationPair(name, better, worse)


def _conversation(row: dict[object, object], side: str, name: str, where: str) -> Conversation:
    """Return one side. A `prompt` that is a text must be the first question, which the messages repeat."""
    prompt, answer = row.get("prompt"), row.get(side)
    if not isinstance(answer, list) or not answer:
        raise UserError(f"{where}: {side} is not a list of at least one message, as the other side is")
    messages = [*prompt, *answer] if isinstance(prompt, list) else answer
    try:
        found = parse_conversation({**row, "messages": messages}, name, where)
    except UserError as error:
        raise UserError(str(error).replace(": messages", f": prompt and {side}: messages", 1)) from None
    questions = [turn["content"] for turn in found.messages if turn["role"] == "user"]
    if isinstance(prompt, str) and prompt != questions[0]:
        raise UserError(f"{where}: prompt is not the first question of {side}: leave prompt out, or give its messages")
    return found
