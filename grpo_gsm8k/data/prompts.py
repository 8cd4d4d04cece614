"""Rendering and tokenization of prompts, as plain text or with the tokenizer's chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from grpo_gsm8k.data.chat_template import ChatTokenizer, render_chat
from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import PromptConfig


class Tokenizer(ChatTokenizer, Protocol):
    """The part of a Hugging Face tokenizer that this module uses."""

    @property
    def bos_token_id(self) -> int | None: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


class Shot(NamedTuple):
    """A worked example that precedes the question."""

    question: str
    response: str


def separator(prompt: PromptConfig) -> str:
    """Return the text between a plain prompt and its response; a chat template ends with its own separator."""
    return "" if prompt.chat or prompt.text[-1:].isspace() else " "


def instructed(prompt: PromptConfig, text: str) -> str:
    """Return the text after the instruction and an empty line; unchanged if there is no instruction."""
    return f"{prompt.instruction}\n\n{text}" if prompt.instruction else text


def render(prompt: PromptConfig, question: str, tokenizer: Tokenizer, shots: Sequence[Shot] = ()) -> str:
    """Fill in the question and, with `chat`, apply the chat template; an empty system text adds no system message.

    The order is instruction, worked examples, question. The instruction begins the text or the first user turn;
    examples are plain text separated by empty lines, or earlier turns of the conversation.
    Raises UserError if the tokenizer has no chat template, or if the template refuses the conversation.
    """

    # str.format would fail on other braces in templates and questions.
    def filled(text: str) -> str:
        return prompt.text.replace("{question}", text)

    if not prompt.chat:
        examples = [f"{filled(shot.question)}{separator(prompt)}{shot.response}\n\n" for shot in shots]
        return instructed(prompt, "".join([*examples, filled(question)]))
    if not tokenizer.chat_template:
        raise UserError(
            f"prompt={prompt.name} needs a chat template and the model's tokenizer has none: set prompt=base"
        )
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    turns = [
        {"role": role, "content": content}
        for shot in shots
        for role, content in (("user", filled(shot.question)), ("assistant", shot.response))
    ]
    turns.append({"role": "user", "content": filled(question)})
    turns[0]["content"] = instructed(prompt, turns[0]["content"])
    messages = [*system, *turns]
    return render_chat(tokenizer, messages, f"set prompt=base instead of prompt={prompt.name}, or another model.path")


def encode_prompt(prompt: PromptConfig, question: str, tokenizer: Tokenizer, shots: Sequence[Shot] = ()) -> np.ndarray:
    """Token ids int32 [P] of the rendered prompt, with the model's start token exactly once if it uses one."""
    ids = tokenizer.encode(render(prompt, question, tokenizer, shots), add_special_tokens=False)
    # A chat template adds special tokens itself.
    start = [] if prompt.chat else start_ids(tokenizer)
    if ids[: len(start)] != start:
        ids = start + ids
    return np.asarray(ids, dtype=np.int32)


def start_ids(tokenizer: Tokenizer) -> list[int]:
    """Return the start token that the tokenizer adds even to an empty text. An end token is ignored."""
    bos = tokenizer.bos_token_id
    return [] if bos is None or bos not in tokenizer.encode("", add_special_tokens=True) else [bos]
