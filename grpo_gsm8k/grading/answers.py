r"""Extraction, parsing and comparison of final answers. No other module parses a number from a completion.

Three rules hold for every format:

* The LAST marker counts, because a model may quote the format before it uses it.
* A base model often answers and then invents the next problem ("Question: ..."). The text is therefore split at every
  line that opens a new problem, and the first part whose last marker holds a number is the answer.
* A completion is well-formed (`Grade.well_formed`) if the marker exists and exactly one number can be parsed after it.
  Format reward, correctness and error kinds all use the same `Grade`.

Text must be decoded without special tokens: "18<|im_end|>" is not a number. Every pattern takes linear time, nothing
is evaluated, and numbers are exact `Decimal`s of at most 40 digits without exponents.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, localcontext
from enum import StrEnum

MAX_ANSWER_CHARS = 200  # longer is prose, not an answer
MAX_DIGITS = 40
MAX_FRACTION_DIGITS = 12


class AnswerFormat(StrEnum):
    r"""Marker of the final answer: `#### 42`, `\boxed{42}`, `ANSWER: 42`, or none (the last number of the text)."""

    HASH = "hash"
    BOXED = "boxed"
    ANSWER = "answer"
    LAST_NUMBER = "last_number"


class Locale(StrEnum):
    """Notation of numbers: `1,234.5` in English, `1.234,5` in Turkish."""

    EN = "en"
    TR = "tr"


@dataclass(frozen=True, slots=True)
class Grade:
    """The verdict on one completion. `extracted` is None without a marker, `number` is None if it cannot be parsed."""

    extracted: str | None
    number: Decimal | None
    correct: bool
    well_formed: bool


# A line that opens a new problem, as in few-shot prompts and chat transcripts.
_NEW_PROBLEM = re.compile(
    r"^[#>*_ \t]*(?:question|problem|exercise|q|soru|human|user)(?: ?[0-9]{1,4})?[*_]{0,2}[ \t]?:",
    re.IGNORECASE | re.MULTILINE,
)
_HASH = re.compile(r"(?<!#)####(?!#)")
_ANSWER = re.compile(r"\b(?:answer|cevap)\*{0,2}[ \t]*:", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed[ \t]*\{")
# Digits inside a word ("H2O") are not a number; a minus after a word, digit or bracket is a subtraction or a hyphen.
# Fractions, mixed numbers and exponents are matched as a whole, so that `parse_number` sees more than the last digits.
_LAST_NUMBER = re.compile(
    r"(?:(?<![\w)\]])-)?[$€£₺%]?(?<![A-Za-z0-9_])(?:[0-9]+(?:[.,][0-9]+)*|\.[0-9]+)"
    r"(?: ?/ ?[0-9]+| [0-9]+/[0-9]+)?(?:[eE][-+]?[0-9]+)?"
)

_WRAPPER = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|boxed) ?\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac ?\{([^{}]*)\} ?\{([^{}]*)\}")
_MIXED = re.compile(r"(?<=[0-9])(?=\\[dt]?frac)")
_THIN_GROUP = re.compile(r"(?<=[0-9])\\,(?=[0-9])")
_DEGREES = re.compile(r"\^ ?(?:\\circ|\{\\circ\})")
_UNIT_POWER = re.compile(r"(?<=[A-Za-z])(?:\^\{?[23]\}?|[²³])")
_SPACES = re.compile(r"\\[,; ]|\\quad|~")
_REPLACEMENTS = (  # separators become spaces, otherwise "2**3" would read as 23
    ("\u2212", "-"),  # minus sign
    ("\u2013", "-"),  # en dash
    ("{,}", ","),
    ("{.}", "."),
    ("\\!", ""),
    ("\\$", "$"),
    ("\\%", "%"),
    ("\\(", " "),
    ("\\)", " "),
    ("\\[", " "),
    ("\\]", " "),
    ("**", " "),
    ("`", " "),
)

_REWRITTEN = re.compile(r"[\\{}*`^~²³\u2212\u2013]")  # without one of these characters, all of the above do nothing

# Relies on the single spaces of `plain_text`: several " *" would take polynomial time on a run of spaces.
_NUMBER = re.compile(
    r"[ :(\[$]*(?:[A-Za-z]? ?= ?)?"  # "(", "$", "x ="
    r"(?P<sign>[-+])? ?(?:US\$|USD|EUR|GBP|TRY|TL|Rs\.?|[$€£₺₹¥%])? ?(?P<inner_sign>[-+])? ?"
    r"(?P<body>[0-9][0-9.,]*|[.,][0-9]+[.,]?)(?: ?/ ?(?P<denominator>[0-9]+))?(?P<tail>.*)"
)
_SHAPES = {
    Locale.EN: re.compile(r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"),
    Locale.TR: re.compile(r"(?:[1-9][0-9]{0,2}(?:\.[0-9]{3})+|[0-9]+)(?:,[0-9]+)?|,[0-9]+"),
}
_TAIL_MARKS = frozenset(" .,;:!?'\"’()[]/%$€£₺₹¥°-")
# A word after the number that changes its value, so it is not a unit: "5 million", "5k", "5x", "3 and a half".
_SCALES = {
    Locale.EN: re.compile(
        r"[ -]*(?:hundreds?|thousands?|millions?|billions?|trillions?|dozens?|k|[xyzei]|pi|π"
        r"|and (?:a |one )?(?:half|quarter|third))(?!\w)",
        re.IGNORECASE,
    ),
    Locale.TR: re.compile(r"[ -]*(?:yüz|bin|milyon|milyar|trilyon|düzine|buçuk|[xyzei]|pi|π)(?!\w)", re.IGNORECASE),
}


def extract(text: str, fmt: AnswerFormat, locale: Locale) -> str | None:
    """Return the raw answer text at the marker that counts, "" when nothing follows it, None without a marker.

    `hash` and `answer` take the rest of the marker's line, `boxed` the text up to the matching brace. See the module
    docstring for completions that continue with another problem.
    """
    fallback: str | None = None
    for part in _problems(text):
        raw = _last_marked(part, fmt)
        if raw is None:
            continue
        if parse_number(raw, locale) is not None:
            return raw
        fallback = raw
    return fallback


def parse_number(raw: str, locale: Locale) -> Decimal | None:
    """Parse the only number of an answer text; None if there is not exactly one.

    The number may follow a currency sign, a single variable ("x = 5") or a bracket, and may precede a unit in words or
    a percent sign; a percentage is its plain number. None for: no or several numbers, malformed grouping ("1,8" in
    English), exponents, a scale ("5 million"), unfinished arithmetic, words before the number. A fraction counts in
    lowest terms only, otherwise an unfinished division ("36/2") would be rewarded. It is rounded to 50 digits, which
    keeps equality exact because plain numbers have at most 40.
    """
    raw = raw.strip()
    if len(raw) > MAX_ANSWER_CHARS:
        return None
    match = _NUMBER.fullmatch(plain_text(raw, locale).strip(" *_"))
    if match is None or (match["sign"] and match["inner_sign"]) or not _is_unit(match["tail"], locale):
        return None
    negative = "-" in (match["sign"], match["inner_sign"])
    if match["denominator"] is not None:
        number = _fraction(match["body"], match["denominator"])
    else:
        number = _decimal(match["body"], locale)
    return number.copy_negate() if number and negative else number


def same_number(a: Decimal | None, b: Decimal | None) -> bool:
    """Return whether both are the same number; None equals nothing, not even None."""
    return a is not None and b is not None and a == b


def canonical(number: Decimal) -> str:
    """Format a number as it is stored: no grouping, no exponent, no trailing zeros, never "-0"."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def marked(gold: str, fmt: AnswerFormat, locale: Locale) -> str:
    r"""Format a canonical number as the last line of a response that `grade` accepts: `#### 42`, `\boxed{42}`, ..."""
    number = gold.replace(".", ",") if locale is Locale.TR else gold
    match fmt:
        case AnswerFormat.HASH:
            return f"#### {number}"
        case AnswerFormat.BOXED:
            return rf"\boxed{{{number}}}"
        case AnswerFormat.ANSWER:
            return f"ANSWER: {number}"
        case AnswerFormat.LAST_NUMBER:
            return f"The answer is {number}."


def grade(text: str, gold: str, fmt: AnswerFormat, locale: Locale) -> Grade:
    """Grade a completion against its gold answer.

    `locale` applies to the completion. `gold` is always in English notation ("1234.5"). Raises ValueError if it is not
    a number, because such a grade would hide bad data.
    """
    expected = parse_number(gold, Locale.EN)
    if expected is None:
        raise ValueError(f"the gold answer {gold[:60]!r} is not one number in English notation")
    extracted = extract(text, fmt, locale)
    number = None if extracted is None else parse_number(extracted, locale)
    return Grade(extracted, number, correct=same_number(number, expected), well_formed=number is not None)


def gsm8k_gold(answer: str) -> str:
    """Return the canonical number after the last `####` of a GSM8K answer. Raises ValueError if there is none."""
    _, marker, raw = answer.rpartition("####")
    if not marker:
        raise ValueError(f"no '####' in the answer {answer[-60:]!r}")
    number = parse_number(raw, Locale.EN)
    if number is None:
        raise ValueError(f"{raw[:60].strip()!r} after '####' is not one number")
    gold = canonical(number)
    if parse_number(gold, Locale.EN) is None:
        raise ValueError(f"{raw[:60].strip()!r} after '####' has no decimal form of at most {MAX_DIGITS} digits")
    return gold


def _problems(text: str) -> Iterator[str]:
    """Split a text at each line that opens a new problem."""
    start = 0
    for match in _NEW_PROBLEM.finditer(text):
        yield text[start : match.start()]
        start = match.start()
    yield text[start:]


def _last_marked(part: str, fmt: AnswerFormat) -> str | None:
    if fmt == AnswerFormat.LAST_NUMBER:
        found = _last_match(_LAST_NUMBER, _latex_to_text(part))
        return None if found is None else found[0]
    pattern = {AnswerFormat.HASH: _HASH, AnswerFormat.ANSWER: _ANSWER, AnswerFormat.BOXED: _BOXED}[fmt]
    found = _last_match(pattern, part)
    if found is None:
        return None
    if fmt == AnswerFormat.BOXED:
        return _until_closing_brace(part, found.end())
    return part[found.end() :].partition("\n")[0].strip()


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    last = None
    for match in pattern.finditer(text):
        last = match
    return last


def _until_closing_brace(text: str, start: int) -> str:
    """Return the text enclosed by the brace before `start`; "" if it never closes, as the rest may be missing."""
    depth = 1
    position = start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1  # an escaped brace does not count
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[start:position].strip()
        position += 1
    return ""


def _latex_to_text(text: str) -> str:
    """Replace the LaTeX and Markdown that models write around numbers; leave everything else unchanged."""
    if _REWRITTEN.search(text) is None:
        return text  # the common case; the replacements below take ten times as long
    for old, new in _REPLACEMENTS:
        text = text.replace(old, new)
    text = _MIXED.sub(" ", _WRAPPER.sub(r"\1", text))
    text = _FRACTION.sub(r"\1/\2", text)
    return _DEGREES.sub("°", text)


def plain_text(raw: str, locale: Locale) -> str:
    """Return an answer text without LaTeX and Markdown, with single spaces."""
    if _REWRITTEN.search(raw) is None:
        return " ".join(raw.split())
    text = _THIN_GROUP.sub("," if locale == Locale.EN else ".", _latex_to_text(raw))
    return " ".join(_UNIT_POWER.sub("", _SPACES.sub(" ", text)).split())


def _is_unit(tail: str, locale: Locale) -> bool:
    if _SCALES[locale].match(tail):
        return False
    return all(c in _TAIL_MARKS or (c.isalpha() and not c.isnumeric()) for c in tail)


def _decimal(body: str, locale: Locale) -> Decimal | None:
    if body[-1] in ".,":
        body = body[:-1]  # the period of the sentence; an ellipsis keeps one, which no shape accepts
    if sum(c.isdigit() for c in body) > MAX_DIGITS or not _SHAPES[locale].fullmatch(body):
        return None
    group, point = (",", ".") if locale == Locale.EN else (".", ",")
    return Decimal(body.replace(group, "").replace(point, "."))


def _fraction(numerator: str, denominator: str) -> Decimal | None:
    if not numerator.isdigit() or max(len(numerator), len(denominator)) > MAX_FRACTION_DIGITS:
        return None
    top, bottom = int(numerator), int(denominator)
    if bottom < 2 or math.gcd(top, bottom) != 1:
        return None
    with localcontext() as context:
        context.prec = 50
        return Decimal(top) / Decimal(bottom)
