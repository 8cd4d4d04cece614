"""Strict and punctuation-free verdicts of texts, in each locale."""

from __future__ import annotations

import random
import time
from decimal import Decimal

import pytest

from grpo_gsm8k.grading.answers import AnswerFormat, Locale, canonical, grade, parse_number
from grpo_gsm8k.grading.punctuation import right_without_punctuation, without_punctuation
from tests.grading.test_answers import HOSTILE, NUMBERS, TEXTS

EN, TR = Locale.EN, Locale.TR
VERDICTS: list[tuple[str, Locale, str, bool, bool]] = [
    # answer, locale, gold, strict, without punctuation
    ("1,234", EN, "1234", True, True),
    ("1.234", EN, "1234", False, True),
    ("1.234", EN, "1.234", True, True),
    ("1,234", EN, "1.234", False, True),
    ("1.234", TR, "1234", True, True),
    ("1,234", TR, "1234", False, True),
    ("1,234", TR, "1.234", True, True),
    ("1.234,50", EN, "1234.5", False, True),
    ("1.234,50", TR, "1234.5", True, True),
    ("1,234.50 TL", TR, "1234.5", False, True),
    ("1.234.567", EN, "1234567", False, True),
    ("1,8", EN, "1.8", False, True),
    ("1.8", TR, "1.8", False, True),
    ("0.125", TR, "0.125", False, True),
    ("18,00", EN, "18", False, True),
    ("18.00", TR, "18", False, True),
    ("-1.234", EN, "-1234", False, True),
    (",5", EN, "0.5", False, True),
    # currency, and punctuation around the number
    ("$18.", EN, "18", True, True),
    ("18,-", EN, "18", True, True),
    ("18.\u2014", EN, "18", False, True),
    ("18.\u2013", TR, "18", True, True),
    ("\u20a918", EN, "18", False, True),
    ("1.234 \u20a9", EN, "1234", False, True),
    ("75¢", EN, "75", False, True),
    ("US$1.234", EN, "1234", False, True),
    ("-\u20a918", EN, "-18", False, True),
    ('"18"', EN, "18", False, True),
    ("\u201c18\u201d", EN, "18", False, True),
    ("«1.234 TL»", TR, "1234", False, True),
    ("{18}", EN, "18", False, True),
    ("[[18]]", EN, "18", True, True),
    ("'1,234'", TR, "1234", False, True),
    ("?? 18 ??", EN, "18", False, True),
    # other groupings
    ("1 234", EN, "1234", False, True),
    ("1\u202f234\u202f567", TR, "1234567", True, True),
    ("1'234.50", EN, "1234.5", True, True),
    ("1\u2019234,50", TR, "1234.5", True, True),
    ("1_000", EN, "1000", False, True),
    ("1 234", EN, "234", False, False),
    ("12 34", EN, "1234", False, False),
    # another number stays another number
    ("1.5", EN, "15", False, False),
    ("1,5", TR, "15", False, False),
    ("1234", EN, "1.234", False, False),
    ("18.0", EN, "180", False, False),
    ("-5", EN, "5", False, False),
    ("\u20145", EN, "5", False, False),
    ("1.2.3", EN, "123", False, False),
    ("12.05.2024", TR, "12052024", False, False),
    ("3-5", EN, "35", False, False),
    ("12, 34", EN, "1234", False, False),
    ("1,234 and 5", EN, "1234", False, False),
    ("$5 million", EN, "5", False, False),
    ("$5M", EN, "5", False, False),
    ("₹5 L", EN, "5", False, False),
    ("5 (million)", EN, "5", False, False),
    ("(in thousands) 5", EN, "5", False, False),
    ("5 bin TL", TR, "5", False, False),
    ("2,5 milyon", TR, "2.5", False, False),
    ("36/2", EN, "18", False, False),
    ("√4", EN, "4", False, False),
    ("≈18", EN, "18", False, False),
    ("3²", EN, "3", False, False),
    ("about 18", EN, "18", False, False),
    ("1e5", EN, "100000", False, False),
    ("", EN, "0", False, False),
    ("\u20ac", EN, "0", False, False),
    (".", EN, "0", False, False),
]


@pytest.mark.parametrize(("raw", "locale", "gold", "strict", "relaxed"), VERDICTS)
def test_both_verdicts(raw: str, locale: Locale, gold: str, strict: bool, relaxed: bool) -> None:
    assert grade(f"#### {raw}", gold, AnswerFormat.HASH, locale).correct == strict
    assert right_without_punctuation(raw, Decimal(gold), locale) == relaxed


@pytest.mark.parametrize(("raw", "locale", "expected"), NUMBERS)
def test_what_is_right_strictly_is_right(raw: str, locale: Locale, expected: str | None) -> None:
    if expected is not None:
        assert right_without_punctuation(raw, Decimal(expected), locale)
        assert not right_without_punctuation(raw, Decimal(expected) * 7 + 13, locale)


def test_no_answer_is_never_right() -> None:
    assert not right_without_punctuation(None, Decimal(0), EN)
    assert not right_without_punctuation("18" + " " * 10 + "." * 250, Decimal(18), EN)


@pytest.mark.parametrize(("text", "fmt", "locale", "raw", "number"), TEXTS)
def test_every_format(text: str, fmt: AnswerFormat, locale: Locale, raw: str | None, number: str | None) -> None:
    extracted = grade(text, "18", fmt, locale).extracted
    assert right_without_punctuation(extracted, Decimal(number or 987654), locale) == (number is not None)


def test_either_notation_of_any_number_is_right() -> None:
    rng = random.Random(2)
    for _ in range(300):
        number = Decimal(rng.randrange(-(10**9), 10**9)).scaleb(-rng.randrange(0, 4))
        english = f"{number:,f}"
        turkish = english.translate(str.maketrans(",.", ".,"))
        for written in (english, turkish, f"({english})", f"₺{turkish}", f"'{english}'", canonical(number)):
            for locale in Locale:
                assert right_without_punctuation(written, number, locale), (written, locale)
                assert not right_without_punctuation(written, number + 1, locale), (written, locale)


def test_what_is_left() -> None:
    assert without_punctuation("«$1.234,50»") == "1.234,50"
    assert without_punctuation("** -5 **") == "-5"
    assert parse_number(without_punctuation("1'234"), TR) == 1234


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_texts_are_cheap(unit: str) -> None:
    start = time.process_time()
    right_without_punctuation("1" + unit * 100_000, Decimal(1), EN)
    right_without_punctuation(("1" + unit * 200)[:200], Decimal(1), TR)
    assert time.process_time() - start < 0.2
