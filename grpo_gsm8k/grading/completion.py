"""The part of a completion that can hold its answer: after the reasoning, and before a next problem or chat turn."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

REASONING_END = "</think>"
# A line that opens a new problem or turn, as in few-shot prompts and chat transcripts. A role needs no colon if it has
# a line of its own: that is what remains of "<|im_start|>user" without its special token.
NEW_PROBLEM = re.compile(
    r"^(?P<marks>[#>*_<\[|\-: \t]*(?:<[|a-z_]{1,24}>)?)"
    r"(?:(?P<word>question|problem|exercise|instruction|q|soru|human|user|assistant|kullanıcı|asistan)"
    r"(?P<rest>(?: ?[0-9]{1,4})?[*_]{0,2}[ \t]?:)"
    r"|(?P<role>human|user|assistant|kullanıcı|asistan)(?P<end>[*_|>\] \t]{0,8}(?:<[|a-z_]{1,24}>)?\r?$))",
    re.IGNORECASE | re.MULTILINE,
)


def after_reasoning(text: str, end: str | None) -> str | None:
    """Return what follows the last end of reasoning, None if the text ends inside its reasoning.

    `end` is the text that ends the reasoning; None: `</think>`. Reasoning can only be seen to be unfinished if the end
    is a closing tag such as `</think>` and the text has the opening one.
    """
    end = end or REASONING_END
    answer = text.rpartition(end)[2]
    opening = end.replace("/", "", 1) if end[:2] in ("</", "[/") else None
    return None if opening is not None and opening in answer else answer


def problems(text: str) -> Iterator[str]:
    """Split a text at each line that opens a new problem or chat turn."""
    start = 0
    for match in NEW_PROBLEM.finditer(text):
        yield text[start : match.start()]
        start = match.start()
    yield text[start:]


def before_stop(text: str, stops: Sequence[str]) -> str:
    """Return the text before the first of the stop texts, all of it without one.

    Generation ends with the token that completes a stop text, which may begin in the middle of a token: the tokens
    hold the stop text, and this removes it from their text.
    """
    ends = [end for stop in stops if (end := text.find(stop)) >= 0]
    return text[: min(ends, default=len(text))]
