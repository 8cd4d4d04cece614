r"""Answers of every format and kind: where a text has its answer, how it is read, and how a gold answer is written.

| format | the answer is |
|---|---|
| `hash` | the rest of the line after `####` |
| `boxed` | the content of `\boxed{...}` |
| `answer` | the rest of the line after `ANSWER:` |
| `tags` | the text between `<TAG>` and `</TAG>`; nothing without both |
| `regex` | the group of a match |
| `last_number` | the last number of the text |

The rules of `answers.py` hold for all of them: the last marker counts, an invented next problem does not, and neither
does reasoning.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import regex

from grpo_gsm8k.grading.answers import (
    AnswerFormat,
    AnswerKind,
    Locale,
    canonical,
    extract_with,
    has_digit,
    in_notation,
    last_marked,
    parse_number,
)
from grpo_gsm8k.grading.choices import parse_choice
from grpo_gsm8k.grading.completion import NEW_PROBLEM, REASONING_END
from grpo_gsm8k.grading.expression_text import latex_of
from grpo_gsm8k.grading.plain_answers import normalized_text

PATTERN_SECONDS = 0.5  # a linear pattern takes milliseconds on the longest completion
ANSWER_FIELD = "{answer}"
_TAG = re.compile(r"[^\W\d_][\w.-]{0,63}")
_SAMPLES = {
    AnswerKind.NUMBER: "42",
    AnswerKind.EXPRESSION: r"\frac{1}{2}",
    AnswerKind.CHOICE: "B",
    AnswerKind.TEXT: "Ankara",
}


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """The format and the kind of answers: the keys `prompt.answer_*`, `prompt.locale` and `prompt.reasoning_end`."""

    format: AnswerFormat
    kind: AnswerKind = AnswerKind.NUMBER
    locale: Locale = Locale.EN
    reasoning_end: str | None = None
    tag: str | None = None
    pattern: str | None = None
    template: str | None = None

    @property
    def has_limits(self) -> bool:
        """Whether a limit of time can end the grading of a completion (`Grade.failed`)."""
        return self.kind is AnswerKind.EXPRESSION or self.format is AnswerFormat.REGEX

    def extract(self, text: str) -> str | None:
        """Return the raw answer of a completion, "" when nothing follows the marker, None without a marker.

        Raises TimeoutError if `pattern` takes too long on this text.
        """
        is_answer = has_digit if self.kind is AnswerKind.NUMBER else bool
        return extract_with(text, self.reasoning_end, self.last_marked, is_answer)

    def last_marked(self, part: str) -> str | None:
        """Return the raw answer at the last marker of a text without reasoning and further problems."""
        match self.format:
            case AnswerFormat.TAGS:
                return self._last_tagged(part)
            case AnswerFormat.REGEX:
                found = self.last_match(part)
                return None if found is None else (found[1] or "").strip()
            case _:
                return last_marked(part, self.format)

    def last_match(self, text: str) -> regex.Match[str] | None:
        """Return the last match of `pattern`. Raises TimeoutError."""
        assert self.pattern is not None
        last = None
        for match in _compiled(self.pattern).finditer(text, timeout=PATTERN_SECONDS):
            last = match
        return last

    def _last_tagged(self, part: str) -> str | None:
        _, opening, rest = part.rpartition(f"<{self.tag}>")
        content, closing, _ = rest.partition(f"</{self.tag}>")
        if not opening:
            return None
        return content.strip() if closing else ""

    def read(self, raw: str) -> str | None:
        """Return the normal form of a raw answer, None if it cannot be read. Equal numbers, letters and texts agree.

        An expression is only checked for its form here; `expression_pool` reads it.
        """
        match self.kind:
            case AnswerKind.NUMBER:
                number = parse_number(raw, self.locale)
                return None if number is None else canonical(number)
            case AnswerKind.CHOICE:
                return parse_choice(raw)
            case AnswerKind.TEXT:
                return normalized_text(raw, self.locale)
            case AnswerKind.EXPRESSION:
                return latex_of(raw)

    def marked(self, gold: str) -> str:
        r"""Return the last line of a response with a gold answer, as grading reads it: `#### 42`, `\boxed{42}`, ...

        Raises ValueError with the fix if the format does not tell how an answer is written.
        """
        answer = in_notation(gold, self.locale) if self.kind is AnswerKind.NUMBER else gold
        match self.format:
            case AnswerFormat.HASH:
                return f"#### {answer}"
            case AnswerFormat.BOXED:
                return rf"\boxed{{{answer}}}"
            case AnswerFormat.ANSWER:
                return f"ANSWER: {answer}"
            case AnswerFormat.LAST_NUMBER:
                return f"The answer is {answer}."
            case AnswerFormat.TAGS:
                return f"<{self.tag}>{answer}</{self.tag}>"
            case AnswerFormat.REGEX:
                if self.template is None:
                    raise ValueError(
                        "prompt.answer_format=regex does not tell how an answer is written, as worked answers need: "
                        "set prompt.answer_template, such as 'Answer: {answer}'"
                    )
                return self.template.replace(ANSWER_FIELD, answer)

    def check(self) -> None:
        """Raise ValueError for keys that are missing, have no effect, or contradict each other."""
        _check_given("answer_tag", self.tag, self.format, AnswerFormat.TAGS)
        _check_given("answer_pattern", self.pattern, self.format, AnswerFormat.REGEX)
        if self.template is not None and self.format is not AnswerFormat.REGEX:
            raise ValueError(f"answer_template has no effect with answer_format={self.format}: set it to null")
        if self.format is AnswerFormat.LAST_NUMBER and self.kind is not AnswerKind.NUMBER:
            raise ValueError(f"answer_format=last_number reads numbers alone, not answer_kind={self.kind}: set another")
        if self.kind is AnswerKind.EXPRESSION and self.locale is not Locale.EN:
            raise ValueError(
                f"answer_kind=expression reads English notation, where 1,5 are two numbers, not locale={self.locale}: "
                "set prompt.locale=en"
            )
        self._check_tag()
        if self.pattern is not None:
            _check_pattern(self.pattern)
            self._check_template()

    def _check_tag(self) -> None:
        if self.tag is None:
            return
        if not _TAG.fullmatch(self.tag) or unicodedata.normalize("NFC", self.tag) != self.tag:
            raise ValueError(
                f"answer_tag={self.tag!r} is not a tag name, a letter and then letters, digits, '-', '_' or '.': "
                "give the name without brackets, such as answer_tag=cevap"
            )
        if f"</{self.tag}>" == (self.reasoning_end or REASONING_END) or NEW_PROBLEM.search(f"<{self.tag}>"):
            raise ValueError(f"answer_tag={self.tag} already marks reasoning or a chat turn: choose another name")

    def _check_template(self) -> None:
        if self.template is None:
            return
        if self.template.count(ANSWER_FIELD) != 1:
            raise ValueError(f"answer_template={self.template!r} must contain {ANSWER_FIELD} once")
        sample = _SAMPLES[self.kind]
        try:
            found = self.extract(self.marked(sample))
        except TimeoutError:
            found = None
        if found is None or self.read(found) != self.read(sample):
            raise ValueError(
                f"answer_pattern reads {found!r} instead of {sample!r} from answer_template: change one of the two"
            )


def _check_given(key: str, value: str | None, given: AnswerFormat, needed: AnswerFormat) -> None:
    if given is needed and value is None:
        raise ValueError(f"answer_format={given} needs {key}: set prompt.{key}=...")
    if given is not needed and value is not None:
        raise ValueError(f"{key} has no effect with answer_format={given}: set prompt.answer_format={needed}")


def _check_pattern(pattern: str) -> None:
    try:
        compiled = _compiled(pattern)
    except (regex.error, RecursionError, OverflowError, MemoryError, ValueError) as error:
        raise ValueError(f"answer_pattern={pattern[:80]!r} is not a regular expression: {error}") from None
    if compiled.groups != 1:
        raise ValueError(
            f"answer_pattern={pattern[:80]!r} has {compiled.groups} groups: put exactly one around the answer, and "
            "write the others as (?:...)"
        )


@lru_cache(maxsize=8)
def _compiled(pattern: str) -> regex.Pattern[str]:
    return regex.compile(pattern)
