"""Which texts are the same answer."""

from __future__ import annotations

import pytest

from grpo_gsm8k.grading.answers import Locale
from grpo_gsm8k.grading.plain_answers import normalized_text

EQUAL = [
    *[("Ankara", "ankara", "en"), ("Ankara", " “Ankara”. ", "en"), ("Ankara", "**Ankara**", "en")],
    *[("Ankara", r"\text{Ankara}", "en"), ("Ankara", "$Ankara$", "en"), ("New York", "new \n york!", "en")],
    *[("Straße", "STRASSE", "en"), ("ﬁne", "fine", "en"), ("café", "cafe\u0301", "en"), ("yes", "Yes.", "en")],
    *[
        ("İzmir", "izmir", "tr"),
        ("Isparta", "ısparta", "tr"),
        ("IĞDIR", "ığdır", "tr"),
        ("DİYARBAKIR", "diyarbakır", "tr"),
    ],
    *[("Iowa", "iowa", "en"), ("C++", "c++", "en"), ("'Ankara.'", "Ankara", "en")],
]
DIFFERENT = [
    *[("Ankara", "Izmir", "en"), ("Isparta", "isparta", "tr"), ("İzmir", "ızmir", "tr"), ("C++", "C", "en")],
    *[("-5", "5", "en"), ("5%", "5", "en"), ("New York", "NewYork", "en"), ("a b", "b a", "en")],
]


@pytest.mark.parametrize(("a", "b", "locale"), EQUAL)
def test_equal_texts(a: str, b: str, locale: str) -> None:
    assert normalized_text(a, Locale(locale)) == normalized_text(b, Locale(locale)) is not None


@pytest.mark.parametrize(("a", "b", "locale"), DIFFERENT)
def test_different_texts(a: str, b: str, locale: str) -> None:
    assert normalized_text(a, Locale(locale)) != normalized_text(b, Locale(locale))


@pytest.mark.parametrize("text", ["", " ", ".", "**", "$$", '""', "x" * 1001])
def test_an_empty_or_overlong_text_is_no_answer(text: str) -> None:
    assert normalized_text(text, Locale.EN) is None
