"""Conversations rendered with a tokenizer's chat template, exactly or not at all."""

from __future__ import annotations

from typing import Any, Protocol

import jinja2

from grpo_gsm8k.errors import UserError

# What a template can raise: its own errors, and those of Python expressions in it.
_FAILURES = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
_REPORTED: set[str] = set()  # templates whose missing system role was reported by this process
_SHOWN = 200  # characters of a template's message

Messages = list[dict[str, str]]


class ChatTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that renders conversations."""

    @property
    def chat_template(self) -> Any: ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> Any: ...


class TemplateRefusedError(UserError):
    """The chat template refuses a conversation, or leaves out a part of it."""


def render_chat(tokenizer: ChatTokenizer, messages: Messages, fix: str, **options: bool) -> str:
    """Render a conversation that opens the assistant's turn.

    A template without a system role (it refuses one, or ignores it silently) gets the system text at the beginning of
    the first user turn, which is reported once per process. Raises UserError with the template's own words and `fix`.
    """
    if messages[0]["role"] != "system":
        return _render(tokenizer, messages, fix, options)
    try:
        return _render(tokenizer, messages, fix, options)
    except TemplateRefusedError as error:
        refused = error
    folded = _folded(messages)
    if folded is None:
        raise refused
    text = _render(tokenizer, folded, fix, options)
    _report_folded(str(tokenizer.chat_template), str(refused))
    return text


def _render(tokenizer: ChatTokenizer, messages: Messages, fix: str, options: dict[str, bool]) -> str:
    arguments = {"add_generation_prompt": True} | options
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, **arguments))
    except _FAILURES as error:
        words = " ".join(str(error).split())[:_SHOWN]
        raise TemplateRefusedError(f"the chat template fails with {type(error).__name__}: {words}; {fix}") from None
    position = 0
    for message in messages:
        system = message["role"] == "system"  # some templates put it before the last user turn
        content = message["content"].strip()
        found = text.find(content, 0 if system else position)
        if found < 0:
            raise TemplateRefusedError(f"the chat template leaves out the {message['role']} message; {fix}")
        position = position if system else found + len(content)
    return text


def _folded(messages: Messages) -> Messages | None:
    """Return the messages with the system text in the first user turn; None if no user turn follows it."""
    if len(messages) < 2 or messages[1]["role"] != "user":
        return None
    system, first, *rest = messages
    return [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def _report_folded(template: str, reason: str) -> None:
    if template not in _REPORTED:
        _REPORTED.add(template)
        print(f"note: the system text is put into the first user turn ({reason.partition(';')[0]})", flush=True)
