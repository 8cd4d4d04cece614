"""Gold numbers: read in the notation of the data, stored in English notation, and checked alike in both directions."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.data.json_values import refuse_surrogates
from grpo_gsm8k.grading.answers import (
    MAX_DIGITS,
    AnswerFormat,
    AnswerKind,
    Locale,
    canonical,
    extract,
    gsm8k_gold,
    parse_number,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

MARKER = "####"
_STORED = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_NO_ANSWERS = ("proof", "notfound")  # of NuminaMath; math-verify would read them as products of variables
_SHOWN = 60  # characters of a text in a message
_OTHER = {Locale.EN: Locale.TR, Locale.TR: Locale.EN}


@dataclass(frozen=True, slots=True)
class Notation:
    """The notation of gold numbers in a source. `given`: data.locale names it; else it is only assumed."""

    locale: Locale
    given: bool


ENGLISH = Notation(Locale.EN, given=True)


def check_stored(gold: str) -> None:
    """Raise ValueError unless a gold number has the form that prepared data contain: "1080", "-0.5"."""
    number = parse_number(gold, Locale.EN) if _STORED.fullmatch(gold) else None
    if number is None or canonical(number) != gold:
        raise ValueError(f"gold {gold[:_SHOWN]!r} is not a canonical number such as 1080 or -0.5")


def gold_of(row: Mapping[str, Any], answer: str, notation: Notation, kind: AnswerKind, named: bool = False) -> str:
    """Return the stored form of a row's gold answer: that of its column `gold`, else the one marked in the answer.

    The marker is `####`, and for expressions also the last `\\boxed{...}`. `named`: data.columns names the column.
    Raises ValueError with the reason.
    """
    if kind is AnswerKind.NUMBER:
        return gold_of_row(row["gold"], answer, notation, named) if "gold" in row else gold_of_answer(answer, notation)
    gold = " ".join(text_of_gold(row["gold"] if "gold" in row else _marked(answer, kind)).split())
    if kind is AnswerKind.EXPRESSION:
        gold = _boxed(gold) or _without_dollars(gold)
        if gold in _NO_ANSWERS:
            raise ValueError(f"gold {gold!r} stands for no answer: remove the row, or set data.invalid=drop")
    if not gold:
        raise ValueError("gold is empty")
    return gold


def text_of_gold(value: object) -> str:
    """Return a gold answer as text; 12.0 is 12, as a column with missing values turns integers into floats.

    Raises ValueError for anything but a text or a finite number.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    finite = not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal) or not finite:
        raise ValueError(f"gold {str(value)[:_SHOWN]!r} is not a text")
    refuse_surrogates(str(value), "gold")
    return str(value)


def _marked(answer: str, kind: AnswerKind) -> str:
    boxed = _boxed(answer) if kind is AnswerKind.EXPRESSION else ""
    if boxed:
        return boxed
    _, marker, raw = answer.rpartition(MARKER)
    if not marker:
        markers = "'####' or \\boxed{...}" if kind is AnswerKind.EXPRESSION else "'####'"
        raise ValueError(f"no {markers} in the answer {answer[-_SHOWN:]!r}; set +data.columns.gold=COLUMN")
    return raw


def _boxed(text: str) -> str:
    return (extract(text, AnswerFormat.BOXED, Locale.EN) or "") if "\\boxed" in text else ""


def _without_dollars(text: str) -> str:
    inner = text[1:-1].strip() if len(text) > 2 and text.startswith("$") and text.endswith("$") else ""
    inner = inner[1:-1].strip() if len(inner) > 2 and inner.startswith("$") and inner.endswith("$") else inner
    return inner if inner and "$" not in inner else text


def gold_of_answer(answer: str, notation: Notation) -> str:
    """Return the stored form of the number after the last `####`. Raises ValueError if there is not exactly one."""
    raw = answer.rpartition(MARKER)[2]
    try:
        gold = gsm8k_gold(answer, notation.locale)
    except ValueError as error:
        hint = _hint(raw, notation) if MARKER in answer else ""
        raise ValueError(
            f"{error}{hint}; end the answer with '#### <number>', name the column of the number with "
            "+data.columns.gold=COLUMN, or set prompt.answer_kind"
        ) from None
    what = f"{raw[:_SHOWN].strip()!r} after '####'"
    _refuse_ambiguous(raw, Decimal(gold), notation, what)
    return gold


def gold_of_row(value: object, answer: str, notation: Notation, named: bool = False) -> str:
    """Return the stored form of a row's `gold`. Raises ValueError if it contradicts the answer's `####`.

    A JSON number is exact. A text in the notation of the data or in the stored form is accepted; if these differ, the
    answer decides. Only the notation counts where data.locale gives it and data.columns names the column (`named`).
    """
    what = f"gold {str(value)[:_SHOWN]!r}"
    if not isinstance(value, str | int | float | Decimal) or isinstance(value, bool):
        raise ValueError(f"{what} is not a number")
    readings = _readings(value, notation, stored_too=not (named and notation.given))
    marked = parse_number(answer.rpartition(MARKER)[2], notation.locale) if MARKER in answer else None
    if not readings:
        raise ValueError(f"{what} is not one number{_hint(str(value), notation)}")
    if marked is not None:
        if marked not in readings:
            raise ValueError(f"{what} contradicts the answer, which ends in '#### {canonical(marked)[:_SHOWN]}'")
        if isinstance(value, str):
            _refuse_ambiguous(value, marked, notation, what)
        return _stored(marked, what)
    if len(readings) > 1:
        raise ValueError(
            f"{what} is {canonical(readings[0])} or {canonical(readings[1])}: set both data.locale and "
            "+data.columns.gold=COLUMN to read it in the notation of the data, or write it as a JSON number"
        )
    if isinstance(value, str):
        _refuse_ambiguous(value, readings[0], notation, what)
    return _stored(readings[0], what)


def _readings(value: str | float | Decimal, notation: Notation, stored_too: bool) -> list[Decimal]:
    if not isinstance(value, str):
        exact = Decimal(str(value))
        small = exact.is_finite() and abs(exact.adjusted()) <= MAX_DIGITS
        text = format(exact, "f") if small else str(exact)
        return [number for number in [parse_number(text, Locale.EN)] if number is not None]
    found = [parse_number(value, notation.locale)]
    if stored_too and _STORED.fullmatch(value.strip()):
        found.append(parse_number(value, Locale.EN))
    return list(dict.fromkeys(number for number in found if number is not None))


def _refuse_ambiguous(raw: str, number: Decimal, notation: Notation, what: str) -> None:
    """Raise ValueError for a decimal such as "13.200" that another notation reads as 13200, unless the key is set."""
    other = _OTHER[notation.locale]
    grouped = None if notation.given else parse_number(raw, other)
    if grouped is not None and abs(grouped) > abs(number):  # else the mark groups digits in this notation
        raise ValueError(
            f"{what} is {canonical(number)} in notation {notation.locale} and {canonical(grouped)} in {other}: "
            f"set data.locale={notation.locale} or data.locale={other}"
        )


def _stored(number: Decimal, what: str) -> str:
    gold = canonical(number)
    try:
        check_stored(gold)
    except ValueError:
        raise ValueError(f"{what} has no decimal form of at most {MAX_DIGITS} digits") from None
    return gold


def _hint(raw: str, notation: Notation) -> str:
    other = _OTHER[notation.locale]
    readable = parse_number(raw, other) is not None
    return f" in notation {notation.locale}, but one in {other}: set data.locale={other}" if readable else ""
