"""The section `prompt`: the template, and how answers are marked and read."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from grpo_gsm8k.config.fields import Section
from grpo_gsm8k.grading.answer_rules import AnswerRules
from grpo_gsm8k.grading.answers import AnswerFormat, AnswerKind, Locale


class PromptConfig(Section):
    """The prompt template. With `chat`, the tokenizer's chat template wraps `system` and the filled-in `text`."""

    name: str
    system: str
    text: str
    chat: bool
    answer_format: AnswerFormat
    answer_kind: AnswerKind = AnswerKind.NUMBER
    answer_tag: str | None = None
    answer_pattern: str | None = None
    answer_template: str | None = None
    locale: Locale
    reasoning_end: Annotated[str, Field(min_length=1)] | None = None
    instruction: str = ""

    @model_validator(mode="after")
    def _check_question(self) -> Self:
        if "{question}" not in self.text:
            raise ValueError("text must contain {question}")
        return self

    @model_validator(mode="after")
    def _check_answers(self) -> Self:
        self.answer_rules.check()
        return self

    @property
    def answer_rules(self) -> AnswerRules:
        """How answers are marked and read, for `Grader`."""
        return AnswerRules(
            self.answer_format,
            self.answer_kind,
            self.locale,
            self.reasoning_end,
            self.answer_tag,
            self.answer_pattern,
            self.answer_template,
        )
