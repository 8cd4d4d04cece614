r"""Extraction, parsing and comparison of final numbers. No other module parses a number from a completion.

Four rules hold for every format:

* The LAST marker counts, because a model may quote the format before it uses it.
* A base model often answers and then invents the next problem ("Question: ...") or chat turn ("user"). The text is
  therefore split at every line that opens one, and the first part whose last marker holds a number is the answer.
* Reasoning is not an answer: only what follows the last `</think>` counts, and a text that ends inside of it has none.
* A completion is well-formed (`Grade.well_formed`) if the marker exists and exactly one number can be parsed after it.
  Format reward, correctness and error kinds all use the same `Grade`.

Text must be decoded without special tokens: "18<|im_end|>" is not a number. Every pattern takes linear time, nothing
is evaluated, and numbers are exact `Decimal`s of at most 40 digits without exponents.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from enum import StrEnum

from grpo_gsm8k.grading.completion import after_reasoning, problems
from grpo_gsm8k.grading.notation import latex_to_text, plain_text
from grpo_gsm8k.grading.units import is_unit, scale_after, words

MAX_ANSWER_CHARS = 200  # longer is prose, not an answer
MAX_DIGITS = 40
MAX_FRACTION_DIGITS = 12


class AnswerFormat(StrEnum):
    r"""Marker of the final answer: `#### 42`, `\boxed{42}`, `ANSWER: 42`, or none (the last number of the text).

    `tags` and `regex` are read with further keys: see `answer_rules.AnswerRules`.
    """

    HASH = "hash"
    BOXED = "boxed"
    ANSWER = "answer"
    LAST_NUMBER = "last_number"
    TAGS = "tags"
    REGEX = "regex"


class AnswerKind(StrEnum):
    """What a final answer is: a number, a mathematical expression, the letter of a choice, or a text."""

    NUMBER = "number"
    EXPRESSION = "expression"
    CHOICE = "choice"
    TEXT = "text"


class Locale(StrEnum):
    """Notation of numbers: `1,234.5` in English, `1.234,5` in Turkish."""

    EN = "en"
    TR = "tr"


@dataclass(frozen=True, slots=True)
class Grade:
    """The verdict on one completion. `extracted` is None without a marker, `value` is None if it cannot be read.

    Equal values have one text in `value`: a number's canonical form, a letter, a normalized text. `failed`: a limit of
    time or memory ended the grading, and the completion counts as wrong.
    """

    extracted: str | None
    value: str | None
    correct: bool
    well_formed: bool
    failed: bool = False


_HASH = re.compile(r"(?<!#)####(?!#)")
_ANSWER = re.compile(r"\b(?:answer|cevap)\*{0,2}[ \t]*:", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed[ \t]*\{")
# Digits inside a word ("H2O") are not a number; a minus after a word, digit or bracket is a subtraction or a hyphen.
# Fractions, mixed numbers and exponents are matched as a whole, so that `parse_number` sees more than the last digits.
_LAST_NUMBER = re.compile(
    r"(?:\^\{?)?(?:(?<![\w)\]])-)?[$€£₺%]?(?<![A-Za-z0-9_])(?:[0-9]+(?:[.,][0-9]+)*|\.[0-9]+)"
    r"(?:(?: ?/ ?[0-9]+)+| [0-9]+/[0-9]+)?(?:[eE][-+]?[0-9]+)?[½⅓⅔¼¾⁰¹²³⁴-⁹]*"
)
_SHOWN_AFTER = 40  # characters after a number that explain why it was refused
# What makes another number of a box: "\boxed{3}/4", "\boxed{5}x", "\boxed{2} \times 10^3", "\boxed{1},234".
_CHANGES_BOX = re.compile(
    r"[$)\]]*\w|(?:[\s$~)\]]|\\[,;:! )\]])*(?:[0-9/^_×·*]|[.,:][0-9]|[-+\u2212\u2013] ?[0-9]"
    r"|\\(?:times|cdot|[dtc]?frac|sqrt|pi)(?![A-Za-z])|(?:\\text\{ *)?(?:or|veya)\b)"
)
_SIGN_OF_BOX = re.compile(
    r"(?P<bullet>^[ \t]*)?(?P<sign>[-\u2212\u2013/_0-9]|\^\{?|_\{|frac ?\{|\\sqrt ?\{?|\b(?:or|veya)"
    r"|\\(?:approx|sim|pm|neq?|leq?|geq?))(?P<gap>[ $]*)$"
)

# Relies on the single spaces of `plain_text`: several " *" would take polynomial time on a run of spaces.
_NUMBER = re.compile(
    r"(?P<head>(?:[ :(\[$]*(?:(?:so|thus|therefore|hence),? )?(?:the |my |our )?(?:final |correct )?answer is:? ?)?"
    r"[ :(\[$]*(?:[A-Za-z]? ?= ?)?"  # "(", "$", "x ="
    r"(?P<sign>[-+])? ?(?:US\$|USD|EUR|GBP|TRY|TL|Rs\.?|[$€£₺₹¥%])? ?)(?P<inner_sign>[-+])? ?"
    r"(?P<body>[0-9][0-9.,]*|[.,][0-9]+[.,]?)"
    r"(?: (?P<numerator>[0-9]+)/(?P<mixed>[0-9]+)| ?/ ?(?P<denominator>[0-9]+))?(?P<tail>.*)",
    re.IGNORECASE,
)
_CURRENCY = re.compile(r"US\$|USD|EUR|GBP|TRY|TL|Rs|[€£₺₹¥]", re.IGNORECASE)
_SHAPES = {
    Locale.EN: re.compile(r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"),
    Locale.TR: re.compile(r"(?:[1-9][0-9]{0,2}(?:\.[0-9]{3})+|[0-9]+)(?:,[0-9]+)?|,[0-9]+"),
}
# Words that are a scale in one language only.
_SCALES = {
    Locale.EN: frozenset[str](),
    Locale.TR: words(
        "bin bindir bini bine binde binden binin biner binlik binlerce yüz yüzdür yüzü yüze yüzden yüzlük yüzer yuz"
    ),
}


def extract(text: str, fmt: AnswerFormat, locale: Locale, reasoning_end: str | None = None) -> str | None:
    """Return the raw answer text at the marker that counts, "" when nothing follows it, None without a marker.

    `hash` and `answer` take the rest of the marker's line, `boxed` the text up to the matching brace, with a sign, a
    scale or arithmetic around the box. `reasoning_end` ends the reasoning; None: `</think>`. See the module docstring
    for completions that continue with another problem.
    """
    return extract_with(text, reasoning_end, lambda part: last_marked(part, fmt), has_digit)


def has_digit(raw: str) -> bool:
    """Whether a raw answer counts; also if it is not one number, because the next problem's would be a wrong one."""
    return any(c.isdigit() for c in raw)


def extract_with(
    text: str, reasoning_end: str | None, find: Callable[[str], str | None], is_answer: Callable[[str], bool]
) -> str | None:
    """Return what `find` returns for the first problem of a text where that is an answer, else its last result."""
    answer = after_reasoning(text, reasoning_end)
    if answer is None:
        return None
    fallback: str | None = None
    for part in problems(answer):
        raw = find(part)
        if raw is not None and is_answer(raw):
            return raw
        fallback = fallback if raw is None else raw
    return fallback


def parse_number(raw: str, locale: Locale) -> Decimal | None:
    """Parse the only number of an answer text; None if there is not exactly one.

    The number may follow "The answer is", a currency sign, a single variable ("x = 5") or a bracket, and may precede a
    unit in words or a percent sign; a percentage is its plain number. None for: no or several numbers, malformed
    grouping ("1,8" in English), exponents, a scale ("5 million", "$5M"), unfinished arithmetic, other words before the
    number. A fraction counts in lowest terms only, otherwise an unfinished division ("36/2") would be rewarded; so does
    that of a mixed number ("1 1/2"). It is rounded to 50 digits, which keeps equality exact because plain numbers have
    at most 40.
    """
    raw = raw.strip()
    if len(raw) > MAX_ANSWER_CHARS:
        return None
    match = _NUMBER.fullmatch(plain_text(raw).strip(" *_"))
    if match is None or (match["sign"] and match["inner_sign"]):
        return None
    head, tail = match["head"], match["tail"]
    currency = _CURRENCY.search(head) is not None or ("$" in head and "$" not in tail)  # "$5$" is LaTeX
    if not is_unit(tail, currency, _SCALES[locale]):
        return None
    if currency and "(" in head and ")" in tail:
        return None  # accountants write -5 as "($5)"
    number = _value(match, locale)
    negative = "-" in (match["sign"], match["inner_sign"])
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


def in_notation(gold: str, locale: Locale) -> str:
    """Return a canonical number as it is written in a locale."""
    return gold.replace(".", ",") if locale is Locale.TR else gold


def grade(text: str, gold: str, fmt: AnswerFormat, locale: Locale, reasoning_end: str | None = None) -> Grade:
    """Grade a completion against its gold answer.

    `locale` and `reasoning_end` apply to the completion.
    `gold` is always in English notation ("1234.5"). Raises ValueError if it is not
    a number, because such a grade would hide bad data.
    """
    return grade_number(extract(text, fmt, locale, reasoning_end), gold, locale)


def grade_number(extracted: str | None, gold: str, locale: Locale) -> Grade:
    """Grade an extracted answer; `grade` explains the arguments."""
    expected = parse_number(gold, Locale.EN)
    if expected is None:
        raise ValueError(f"the gold answer {gold[:60]!r} is not one number in English notation")
    number = None if extracted is None else parse_number(extracted, locale)
    value = None if number is None else canonical(number)
    return Grade(extracted, value, correct=same_number(number, expected), well_formed=number is not None)


def gsm8k_gold(answer: str, locale: Locale = Locale.EN) -> str:
    """Return the canonical number after the last `####` of a GSM8K answer. Raises ValueError if there is none."""
    _, marker, raw = answer.rpartition("####")
    if not marker:
        raise ValueError(f"no '####' in the answer {answer[-60:]!r}")
    number = parse_number(raw, locale)
    if number is None:
        raise ValueError(f"{raw[:60].strip()!r} after '####' is not one number")
    gold = canonical(number)
    if parse_number(gold, Locale.EN) is None:
        raise ValueError(f"{raw[:60].strip()!r} after '####' has no decimal form of at most {MAX_DIGITS} digits")
    return gold


def _value(match: re.Match[str], locale: Locale) -> Decimal | None:
    body = match["body"]
    if match["denominator"] is not None:
        return _fraction(body, match["denominator"])
    if match["mixed"] is None:
        return _decimal(body, locale)
    part = _fraction(match["numerator"], match["mixed"])
    if part is None or part >= 1 or not body.isdigit() or len(body) > MAX_FRACTION_DIGITS:
        return None
    with localcontext() as context:
        context.prec = 50
        return Decimal(int(body) * int(match["mixed"]) + int(match["numerator"])) / Decimal(int(match["mixed"]))


def last_marked(part: str, fmt: AnswerFormat) -> str | None:
    """Return the raw answer at the last marker of a text; `fmt` is neither `tags` nor `regex`."""
    if fmt == AnswerFormat.LAST_NUMBER:
        return _last_number(latex_to_text(part))
    pattern = {AnswerFormat.HASH: _HASH, AnswerFormat.ANSWER: _ANSWER, AnswerFormat.BOXED: _BOXED}[fmt]
    found = _last_match(pattern, part)
    if found is None:
        return None
    if fmt == AnswerFormat.BOXED:
        return _boxed(part, found)
    return part[found.end() :].partition("\n")[0].strip()


def _last_number(text: str) -> str | None:
    """Return the last number of a text, with the scale that follows it: "5 million" is not 5."""
    found = _last_match(_LAST_NUMBER, text)
    if found is None:
        return None
    following = text[found.end() : found.end() + _SHOWN_AFTER].partition("\n")[0]
    currency = any(sign in found[0] for sign in "$€£₺")
    return found[0] + following if scale_after(following, currency) else found[0]


def _boxed(part: str, found: re.Match[str]) -> str:
    """Return the content of a box, with what changes its value: a sign before it, a scale or arithmetic after it."""
    inner, end = _until_closing_brace(part, found.end())
    if not inner:
        return inner
    line = part[max(0, found.start() - _SHOWN_AFTER) : found.start()].rpartition("\n")[2]
    sign = _SIGN_OF_BOX.search(line)
    bullet = sign is not None and sign["bullet"] is not None and sign["sign"] in "-\u2013" and sign["gap"]
    if sign is not None and not bullet:
        inner = f"{sign['sign']} {inner}"
    following = part[end : end + _SHOWN_AFTER].partition("\n")[0]
    currency = any(sign in inner + line[-3:] for sign in ("\\$", "€", "£", "₺"))
    changed = _CHANGES_BOX.match(following) or scale_after(latex_to_text(following), currency)
    return inner + following.rstrip() if changed else inner


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    last = None
    for match in pattern.finditer(text):
        last = match
    return last


def _until_closing_brace(text: str, start: int) -> tuple[str, int]:
    """Return the text enclosed by the brace before `start` and the position after it.

    The text is "" if the brace never closes, as the rest may be missing.
    """
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
                return text[start:position].strip(), position + 1
        position += 1
    return "", len(text)


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
