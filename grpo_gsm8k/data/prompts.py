"""Questions to prompts: plain text, or the tokenizer's chat template. The only place that tokenises text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from grpo_gsm8k.config import PromptConfig


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    @property
    def chat_template(self) -> Any: ...

    @property
    def bos_token_id(self) -> int | None: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> Any: ...


def render(prompt: PromptConfig, question: str, tokenizer: Tokenizer) -> str:
    """Fill in the question and, for `chat`, wrap it; an empty system text gives no system message.

    Raises UserError when the tokenizer has no chat template.
    """
    # Not str.format: templates and questions contain braces of their own.
    text = prompt.text.replace("{question}", question)
    if not prompt.chat:
        return text
    if not tokenizer.chat_template:
        raise UserError(
            f"prompt={prompt.name} needs a chat template and the model's tokenizer has none: set prompt=base"
        )
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    messages = [*system, {"role": "user", "content": text}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def encode_prompt(prompt: PromptConfig, question: str, tokenizer: Tokenizer) -> np.ndarray:
    """Token ids int32 [P] of the rendered prompt, with the model's start token exactly once where it uses one."""
    ids = tokenizer.encode(render(prompt, question, tokenizer), add_special_tokens=False)
    # A chat template writes its special tokens itself.
    start = [] if prompt.chat else _start_ids(tokenizer)
    if ids[: len(start)] != start:
        ids = start + ids
    return np.asarray(ids, dtype=np.int32)


def _start_ids(tokenizer: Tokenizer) -> list[int]:
    """What the tokenizer puts before a plain text: it shows around an empty one. An end token is left out."""
    bos = tokenizer.bos_token_id
    return [] if bos is None or bos not in tokenizer.encode("", add_special_tokens=True) else [bos]
