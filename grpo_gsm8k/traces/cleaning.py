r"""From a teacher's text to a response worth imitating: no echoed instructions, one final answer, in one notation.

A sentence that echoes an instruction is dropped; one with a digit outside of an answer marker stays, because it may
be part of the solution. An answer that ends the text is taken off, so that the final line does not double it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from grpo_gsm8k.grading.answers import AnswerFormat, Locale, extract, parse_number

if TYPE_CHECKING:
    from grpo_gsm8k.config import PromptConfig

_THINK = re.compile(r"\A\s*(?:<think>)?(?P<reasoning>.*?)</think>(?P<text>.*)\Z", re.DOTALL)
_BLANK_LINES = re.compile(r"\n{3,}")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'*\\(])")
_MARKED_NUMBER = re.compile(
    r"\\boxed ?\{[^{}]*\}|(?:####|\banswer\b(?: is)?[*: ]*)\s*[$€£₺]?-?[0-9][0-9.,]*", re.IGNORECASE
)
_LONGEST_ECHO = 300  # characters; longer is no echo, and the patterns below take more than linear time
_TARGET = r"(?:\\boxed|####|(?-i:\bANSWER\b)|\bfinal answer\b|\banswer\b[^.]*\bbox)"
_ECHOES = re.compile(
    "|".join(
        (
            # "I will output ANSWER: ...", "put the final answer in \boxed{}"
            r"\b(?:output|put|writ|present|giv|format|enclos|wrap|plac|provid|stat|report|return|end|finish|conclud|box"
            rf"|express)(?:e|t?ing)?\b[^.]*?(?:{_TARGET}|\banswer in the (?:required|requested|right) format)",
            r"\banswer\b[^.]*\b(?:should|must|needs? to|ha[sv]e? to)\s+be\b[^.]*(?:\\boxed|####|\bboxed\b|\bformat)",
            r"\b(?:show|explain|give|provide|include)\s+(?:your|my|the|all)\s+(?:\w+\s+)?"
            r"(?:reasoning|work(?:ings?)?|steps|thought process|chain of thought)\b",
            r"\b(?:please|need|should|must|have to|asked|told|supposed|instructed|required|wants?|says?|said)\b"
            r"[^.]*\bstep[- ]by[- ]step\b",
            r"\b(?:instructions?|prompt|system message|guidelines?|required format)\s+(?:\w+\s+)?"
            r"(?:says?|said|asks?|asked|wants?|requires?|tells?|told|states?|specif(?:y|ies)|requests?|is|are)\b",
            r"\b(?:according to|following|as per|per) (?:the|my|these|your) (?:instructions?|prompt|guidelines?)\b",
            r"\bas (?:instructed|requested)\b",
            rf"\buser\s+(?:\w+\s+)?(?:wants?|asks?|asked|requests?|requires?|said|says?)\b[^.]*(?:{_TARGET}|\bformat"
            r"|\breasoning\b)",
        )
    ),
    re.IGNORECASE,
)
# A heading that `answers.py` takes for the beginning of another problem: the response would be cut there.
_NEW_PROBLEM = re.compile(
    r"^(?P<marks>[#>*_ \t]*)(?P<word>question|problem|exercise|q|soru|human|user)"
    r"(?P<rest>(?: ?[0-9]{1,4})?[*_]{0,2}[ \t]?:)",
    re.IGNORECASE | re.MULTILINE,
)

_MARKS = " \t*_`$>.,;:!-()[]"
_LEAD = re.compile(
    r"(?:(?:so|thus|therefore|hence|finally|and|then)\b,?\s*)?(?:(?:the|my|our)\b\s*)?(?:correct\b\s*)?(?:final\b\s*)?"
    r"(?:(?:answer|result|cevap|sonuç)\b)?[\s*_:=]*(?:(?:is|should be|must be|will be)\b)?[\s*_:=$]*",
    re.IGNORECASE,
)
_HEADING = re.compile(r"[#*_ \t]*(?:(?:the |nihai )?final )?(?:answer|cevap|sonuç)(?: is)?[*_: \t]*|[#*_]+|-{3,}", re.I)
_BRACKETS = {"\\]": "\\[", "$$": "$$", "```": "```", "\\)": "\\("}
_ANSWER_WORD = re.compile(r"\b(?:answer|cevap)\*{0,2}[ \t]*:", re.IGNORECASE)
_STATEMENT = re.compile(r"\b(?:answer|cevap)\b[\s*_]*(?::|is\b:?|=)?[\s*_]*", re.IGNORECASE)


def split_thinking(reasoning: str | None, text: str) -> tuple[str, str]:
    """Reasoning and answer; some servers leave the reasoning in the text, before `</think>`."""
    match = None if reasoning else _THINK.match(text)
    return (reasoning or "", text) if match is None else (match["reasoning"], match["text"])


def tidy(text: str) -> str:
    """One kind of line end, no blanks at ends of lines, no heading that would open another problem."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("<think>", "").replace("</think>", "")
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    text = _NEW_PROBLEM.sub(lambda m: f"{m['marks']}The {m['word'].lower()}{m['rest']}", text)
    return _BLANK_LINES.sub("\n\n", text).strip()


def without_echoes(text: str, prompt: PromptConfig) -> tuple[str, int]:
    """Drop sentences that repeat the instruction; returns the rest and how many were dropped."""
    told = {_key(part) for part in _sentences(f"{prompt.system} {prompt.text.replace('{question}', '. ')}")}
    kept_lines: list[str] = []
    dropped = 0
    for line in text.split("\n"):
        sentences = _sentences(line)
        kept = [sentence for sentence in sentences if not _is_echo(sentence, told)]
        dropped += len(sentences) - len(kept)
        if len(kept) == len(sentences):
            kept_lines.append(line)
        elif any(any(c.isalnum() for c in sentence) for sentence in kept):
            kept_lines.append(" ".join(kept))
    return _BLANK_LINES.sub("\n\n", "\n".join(kept_lines)).strip(), dropped


def without_answer(text: str, fmt: AnswerFormat, locale: Locale) -> str:
    """Take off the answers of this format that end a text, and headings that announced them."""
    lines = text.split("\n")
    while lines:
        last = lines[-1].strip()
        if not last or _HEADING.fullmatch(last):
            lines.pop()
            continue
        if _is_bracketed_answer(lines, fmt, locale):
            del lines[-3:]
            continue
        rest = _before_answer(last, fmt, locale)
        if rest is None:
            break
        lines.pop()
        if rest:  # the answer stood at the end of a sentence of the solution
            lines.append(rest)
            break
    return "\n".join(lines).strip()


def _sentences(line: str) -> list[str]:
    return [part for part in _SENTENCE_END.split(line.strip()) if part.strip()]


def _key(sentence: str) -> str:
    return " ".join(re.findall(r"\w+", sentence.casefold()))


def _is_echo(sentence: str, told: set[str]) -> bool:
    key = _key(sentence)
    if key in told and len(key.split()) >= 3:
        return True
    if len(sentence) > _LONGEST_ECHO or not _ECHOES.search(sentence):
        return False
    return not any(c.isdigit() for c in _MARKED_NUMBER.sub(" ", sentence))


def _is_bracketed_answer(lines: list[str], fmt: AnswerFormat, locale: Locale) -> bool:
    r"""Whether the text ends with an answer on a line of its own between `\[` and `\]`, or the like."""
    if len(lines) < 3:
        return False
    opening, inner, closing = (line.strip() for line in lines[-3:])
    opened = _BRACKETS.get(closing)
    return opened is not None and opening.startswith(opened) and _before_answer(inner, fmt, locale) == ""


def _before_answer(line: str, fmt: AnswerFormat, locale: Locale) -> str | None:
    """What stands before the answer that ends a line, "" when that is all; None when no answer ends it."""
    if fmt is AnswerFormat.BOXED:
        return _before_box(line, locale)
    if fmt is AnswerFormat.HASH:
        head, marker, raw = line.rpartition("####")
        head = head.rstrip("#")
    elif fmt is AnswerFormat.ANSWER:
        head, marker, raw = _partition(_ANSWER_WORD, line)
    else:
        return _before_statement(line, locale)
    if not marker or parse_number(raw, locale) is None:
        return None
    return "" if _is_lead(head) else head.rstrip(" \t*_")


def _before_box(line: str, locale: Locale) -> str | None:
    raw = extract(line, AnswerFormat.BOXED, locale)
    if not raw or parse_number(raw, locale) is None:
        return None
    start = line.rfind("\\boxed", 0, line.rfind(raw))
    head, end = line[:start], line.rfind(raw) + len(raw)
    tail = line[end:].lstrip().removeprefix("}")
    if any(c.isdigit() for c in tail) or "\\boxed" in head:
        return None  # more than one number: nothing that can be told apart safely
    return "" if _is_lead(head) and len(tail.split()) <= 3 else f"{head}{raw}{tail}"


def _before_statement(line: str, locale: Locale) -> str | None:
    """For the last number of a text: only a line that states the answer and nothing else is one."""
    for fmt in (AnswerFormat.HASH, AnswerFormat.BOXED):
        if _before_answer(line, fmt, locale) == "":
            return ""
    head, marker, raw = _partition(_STATEMENT, line)
    return "" if marker and _is_lead(head) and parse_number(raw, locale) is not None else None


def _partition(pattern: re.Pattern[str], line: str) -> tuple[str, str, str]:
    """As `str.rpartition`, for the last match of a pattern."""
    last = None
    for match in pattern.finditer(line):
        last = match
    return ("", "", line) if last is None else (line[: last.start()], last[0], line[last.end() :])


def _is_lead(head: str) -> bool:
    """Whether a text only announces an answer."""
    plain = re.sub(r"\\[()\[\]]|\\text\{\s*\}", " ", head).strip(_MARKS)
    return _LEAD.fullmatch(plain) is not None
