r"""Cleaning of a teacher's text into a training response: no echoed instructions, one final answer, one notation.

Sentences that echo an instruction are dropped, unless they contain a digit outside of an answer marker: those may be
part of the solution. An answer at the end of the text is removed, because the final line is added later.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from grpo_gsm8k.grading.answers import AnswerFormat, last_marked
from grpo_gsm8k.grading.completion import NEW_PROBLEM

if TYPE_CHECKING:
    from grpo_gsm8k.config import PromptConfig
    from grpo_gsm8k.grading.answer_rules import AnswerRules

_THINK = re.compile(r"\A\s*(?:<think>)?(?P<reasoning>.*?)</think>(?P<text>.*)\Z", re.DOTALL)
_BLANK_LINES = re.compile(r"\n{3,}")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'*\\(])")
_MARKED_NUMBER = re.compile(
    r"\\boxed ?\{[^{}]*\}|(?:####|\banswer\b(?: is)?[*: ]*)\s*[$€£₺]?-?[0-9][0-9.,]*", re.IGNORECASE
)
_LONGEST_ECHO = 300  # characters; longer sentences are not echoes, and the patterns below are superlinear
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
    """Return reasoning and answer; some servers put the reasoning into the text, before `</think>`."""
    match = None if reasoning else _THINK.match(text)
    return (reasoning or "", text) if match is None else (match["reasoning"], match["text"])


def tidy(text: str) -> str:
    """Normalize line ends, strip trailing blanks, and reword headings that would start another problem."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("<think>", "").replace("</think>", "")
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    text = NEW_PROBLEM.sub(_reworded, text)
    return _BLANK_LINES.sub("\n\n", text).strip()


def _reworded(heading: re.Match[str]) -> str:
    """Return a heading that grading does not take for a new problem: the response would be cut there."""
    word, rest = (heading["word"], heading["rest"]) if heading["word"] else (heading["role"], heading["end"])
    return f"{heading['marks']}The {word.lower()}{rest}"


def without_echoes(text: str, prompt: PromptConfig) -> tuple[str, int]:
    """Drop sentences that repeat the instruction. Returns the rest and how many were dropped."""
    instructions = {_key(part) for part in _sentences(_fixed_text(prompt))}
    kept_lines: list[str] = []
    dropped = 0
    for line in text.split("\n"):
        sentences = _sentences(line)
        kept = [sentence for sentence in sentences if not _is_echo(sentence, instructions)]
        dropped += len(sentences) - len(kept)
        if len(kept) == len(sentences):
            kept_lines.append(line)
        elif any(any(c.isalnum() for c in sentence) for sentence in kept):
            kept_lines.append(" ".join(kept))
    return _BLANK_LINES.sub("\n\n", "\n".join(kept_lines)).strip(), dropped


def _fixed_text(prompt: PromptConfig) -> str:
    return f"{prompt.system} {prompt.instruction} {prompt.text.replace('{question}', '. ')}"


def without_answer(text: str, rules: AnswerRules) -> str:
    """Remove answers in the prompt's format from the end of a text, with their headings."""
    if rules.format in (AnswerFormat.TAGS, AnswerFormat.REGEX):
        text = _without_last_match(text, rules)
    lines = text.split("\n")
    while lines:
        last = lines[-1].strip()
        if not last or _HEADING.fullmatch(last):
            lines.pop()
            continue
        if _is_bracketed_answer(lines, rules):
            del lines[-3:]
            continue
        rest = _before_answer(last, rules)
        if rest is None:
            break
        lines.pop()
        if rest:  # the answer ended a sentence of the solution
            lines.append(rest)
            break
    return "\n".join(lines).strip()


def _without_last_match(text: str, rules: AnswerRules) -> str:
    """Cut the answer in tags, or the match of the pattern, off the end of a text; leave one inside the text."""
    if rules.format is AnswerFormat.TAGS:
        head, opening, rest = text.rpartition(f"<{rules.tag}>")
        raw, closing, tail = rest.partition(f"</{rules.tag}>")
        is_complete = bool(opening and closing)
    else:
        try:
            match = rules.last_match(text)
        except TimeoutError:
            return text
        if match is None:
            return text
        head, raw, tail, is_complete = text[: match.start()], match[1] or "", text[match.end() :], True
    if not is_complete or rules.read(raw) is None or tail.strip(_MARKS + "\n"):
        return text
    before, _, last = head.rpartition("\n")
    return (before if _is_lead(last) else head).rstrip()


def _sentences(line: str) -> list[str]:
    return [part for part in _SENTENCE_END.split(line.strip()) if part.strip()]


def _key(sentence: str) -> str:
    return " ".join(re.findall(r"\w+", sentence.casefold()))


def _is_echo(sentence: str, instructions: set[str]) -> bool:
    key = _key(sentence)
    if key in instructions and len(key.split()) >= 3:
        return True
    if len(sentence) > _LONGEST_ECHO or not _ECHOES.search(sentence):
        return False
    return not any(c.isdigit() for c in _MARKED_NUMBER.sub(" ", sentence))


def _is_bracketed_answer(lines: list[str], rules: AnswerRules) -> bool:
    r"""Return whether the text ends with an answer on its own line between `\[` and `\]` or similar brackets."""
    if len(lines) < 3:
        return False
    opening, inner, closing = (line.strip() for line in lines[-3:])
    opened = _BRACKETS.get(closing)
    return opened is not None and opening.startswith(opened) and _before_answer(inner, rules) == ""


def _before_answer(line: str, rules: AnswerRules) -> str | None:
    """Return the text before the answer that ends a line, "" if nothing else is there; None if no answer ends it."""
    if rules.format in (AnswerFormat.TAGS, AnswerFormat.REGEX):
        return None  # removed before
    if rules.format is AnswerFormat.BOXED:
        return _before_box(line, rules)
    if rules.format is AnswerFormat.HASH:
        head, marker, raw = line.rpartition("####")
        head = head.rstrip("#")
    elif rules.format is AnswerFormat.ANSWER:
        head, marker, raw = _partition(_ANSWER_WORD, line)
    else:
        return _before_statement(line, rules)
    if not marker or rules.read(raw) is None:
        return None
    return "" if _is_lead(head) else head.rstrip(" \t*_")


def _before_box(line: str, rules: AnswerRules) -> str | None:
    raw = last_marked(line, AnswerFormat.BOXED)
    if not raw or rules.read(raw) is None:
        return None
    start = line.rfind("\\boxed", 0, line.rfind(raw))
    head, end = line[:start], line.rfind(raw) + len(raw)
    tail = line[end:].lstrip().removeprefix("}")
    if any(c.isdigit() for c in tail) or "\\boxed" in head:
        return None  # several numbers: which one is the answer is ambiguous
    return "" if _is_lead(head) and len(tail.split()) <= 3 else f"{head}{raw}{tail}"


def _before_statement(line: str, rules: AnswerRules) -> str | None:
    """Return "" if a line only states the answer, else None; used for `last_number`."""
    for fmt in (AnswerFormat.HASH, AnswerFormat.BOXED):
        if _before_answer(line, replace(rules, format=fmt)) == "":
            return ""
    head, marker, raw = _partition(_STATEMENT, line)
    return "" if marker and _is_lead(head) and rules.read(raw) is not None else None


def _partition(pattern: re.Pattern[str], line: str) -> tuple[str, str, str]:
    """Split a line at the last match of a pattern, as `str.rpartition` does."""
    last = None
    for match in pattern.finditer(line):
        last = match
    return ("", "", line) if last is None else (line[: last.start()], last[0], line[last.end() :])


def _is_lead(head: str) -> bool:
    """Return whether a text only introduces an answer."""
    plain = re.sub(r"\\[()\[\]]|\\text\{\s*\}", " ", head).strip(_MARKS)
    return _LEAD.fullmatch(plain) is not None
