"""Ways of writing a number that are read, each with texts that look alike and are another number or none."""

from __future__ import annotations

import pytest

from grpo_gsm8k.grading.answers import AnswerFormat, Locale, canonical, grade, parse_number
from grpo_gsm8k.grading.notation import plain_text

EN, TR = Locale.EN, Locale.TR
READ: list[tuple[str, Locale, str]] = [
    # fractions
    (r"\frac12", EN, "0.5"),
    (r"\frac 12", EN, "0.5"),
    (r"\frac1{2}", EN, "0.5"),
    (r"\frac{1}2", EN, "0.5"),
    (r"\cfrac{1}{2}", EN, "0.5"),
    (r"\tfrac12", EN, "0.5"),
    (r"-\dfrac{3}{4}", EN, "-0.75"),
    (r"\frac{-3}{4}", EN, "-0.75"),
    (r"\displaystyle\frac{1}{2}", EN, "0.5"),
    (r"\frac{\text{1}}{\mathbf{2}}", EN, "0.5"),
    (r"\frac12\text{ cup}", EN, "0.5"),
    ("1\u20442", EN, "0.5"),
    # mixed numbers
    ("1 1/2", EN, "1.5"),
    (r"1\frac{1}{2}", EN, "1.5"),
    (r"1\,\frac{1}{2}", EN, "1.5"),
    (r"-2\tfrac34", EN, "-2.75"),
    ("-2 3/4 hours", EN, "-2.75"),
    ("$3 1/2", EN, "3.5"),
    ("1 1/2", TR, "1.5"),
    # wrappers
    (r"\left( 18 \right)", EN, "18"),
    (r"\left(18\right.", EN, "18"),
    (r"\bigl(18\bigr)", EN, "18"),
    (r"\boldsymbol{18}", EN, "18"),
    (r"\mathbf{18}", EN, "18"),
    (r"\mathbf{\boldsymbol{18}}", EN, "18"),
    (r"\text{\textbf{18}}", EN, "18"),
    (r"\text{\textbf{18 apples}}", EN, "18"),
    (r"\displaystyle 18", EN, "18"),
    (r"\displaystyle{18}", EN, "18"),
    (r"\boxed{\boxed{\text{18}}}", EN, "18"),
    (r"\fbox{18}", EN, "18"),
    (r"\mathrm{18\,km}", EN, "18"),
    (r"18\ \mathrm{m}/\mathrm{s}", EN, "18"),
    (r"18\frac{\text{miles}}{\text{hour}}", EN, "18"),
    (r"$18\textdegree$".replace(r"\textdegree", r"^{\circ}"), EN, "18"),
    # spaces and separators
    (r"1\,234\,567", EN, "1234567"),
    (r"1\!234", EN, "1234"),
    (r"18\;\text{kg}", EN, "18"),
    (r"18\ kg", EN, "18"),
    (r"18\:kg", EN, "18"),
    (r"18~kg", EN, "18"),
    (r"18\quad", EN, "18"),
    ("1{,}234.5", EN, "1234.5"),
    (r"\$1{,}234", EN, "1234"),
    (r"50\,\%", EN, "50"),
    ("1\u2009234", EN, "1234"),
    ("1\u202f234\u202f567", EN, "1234567"),
    ("1\u00a0234.5", EN, "1234.5"),
    ("1\u00a0234,5", TR, "1234.5"),
    ("1'234", EN, "1234"),
    ("1\u2019234\u2019567", EN, "1234567"),
    ("12.500'dür", TR, "12500"),
    # invisible and full-width characters, signs
    ("\ufeff18", EN, "18"),
    ("1\u200b8", EN, "18"),
    ("\u200e18\u200f", EN, "18"),
    ("\u206618\u2069", EN, "18"),
    ("18\u00ad", EN, "18"),
    ("1\u2060,234", EN, "1234"),
    ("\uff11\uff18", EN, "18"),
    ("\uff11\uff0c\uff12\uff13\uff14\uff0e\uff15", EN, "1234.5"),
    ("\uff0d18", EN, "-18"),
    ("\ufe6318", EN, "-18"),
    ("\u221218", EN, "-18"),
    ("\u201318", EN, "-18"),
    ("\u201118", EN, "-18"),
    ("\uff0b18", EN, "18"),
    ("\uff0418", EN, "18"),
    ("50\uff05", EN, "50"),
    ("\uff0818\uff09", EN, "18"),
    ("18\u3002", EN, "18"),
    # words before the number
    ("The answer is 18", EN, "18"),
    ("the answer is: 18.", EN, "18"),
    ("So, the final answer is $18.", EN, "18"),
    ("Therefore, the answer is **18**", EN, "18"),
    (r"The answer is \boxed{18}", EN, "18"),
    ("The answer is x = -18", EN, "-18"),
    ("The answer is 1.250 TL", TR, "1250"),
]


@pytest.mark.parametrize(("raw", "locale", "expected"), READ)
def test_read(raw: str, locale: Locale, expected: str) -> None:
    number = parse_number(raw, locale)
    assert number is not None
    assert canonical(number) == expected
    for text, fmt in [(f"So\n#### {raw}", AnswerFormat.HASH), (rf"It is $\boxed{{{raw}}}$.", AnswerFormat.BOXED)]:
        assert grade(text, expected, fmt, locale).correct
        assert not grade(text, "987654", fmt, locale).correct


NOT_READ: list[tuple[str, Locale]] = [
    (r"\frac123", EN),
    (r"\frac{1}{2}3", EN),
    (r"\frac{1}{2}\frac{1}{3}", EN),
    (r"\frac{18}{x}", EN),
    (r"\frac{18}{2}", EN),
    (r"\frac{1}{2+3}", EN),
    (r"\frac{18 + 2}{3}", EN),
    (r"\frac{\frac12}{3}", EN),
    (r"x\frac{1}{2}", EN),
    (r"1.5\frac12", EN),
    ("1 3/2", EN),
    ("1 2/4", EN),
    ("1,5 1/2", EN),
    ("1.5 1/2", EN),
    ("1 1/2/3", EN),
    ("1 1/2 1/3", EN),
    ("1-1/2", EN),
    ("2 and 1/2", EN),
    ("5 1 1/2", EN),
    (r"2\boxed{3}", EN),
    (r"\sqrt{18}", EN),
    (r"\sqrt[3]{18}", EN),
    (r"18^{2}", EN),
    (r"18_2", EN),
    (r"\pm 18", EN),
    (r"\approx 18", EN),
    (r"\sim 18", EN),
    (r"\leq 18", EN),
    (r"\left|18\right|", EN),
    (r"\lfloor 18.5 \rfloor", EN),
    (r"18!", EN),
    (r"18\cdot 10^3", EN),
    (r"1.8\times 10^{1}", EN),
    (r"0.\overline{3}", EN),
    (r"\infty", EN),
    ("~18", EN),
    ("17~18", EN),
    ("17\uff5e18", EN),
    ("17\u201318", EN),
    ("\u201418", EN),
    ("1\u00a0234\u2009567", EN),
    ("1\u00a0234,567", EN),
    ("1\u00a023", EN),
    ("1\u00a02345", EN),
    ("0\u00a0234", EN),
    ("1 234", EN),
    (r"1\;234", EN),
    (r"1\ 234", EN),
    ("1'23", EN),
    ("5'11\"", EN),
    ("5'110'1", EN),
    ("2\u20623", EN),
    ("\u202e81", EN),
    ("\u0661\u0668", EN),
    ("18\u2082", EN),
    ("The answer is not 18", EN),
    ("The answer is about 18", EN),
    ("The answer is 17 or 18", EN),
    ("The answer is between 17 and 18", EN),
    ("The answer isn't 18", EN),
    ("Answer: 18", EN),
    ("Step 18", EN),
]


@pytest.mark.parametrize(("raw", "locale"), NOT_READ)
def test_not_read(raw: str, locale: Locale) -> None:
    assert parse_number(raw, locale) is None


def test_deeply_nested_wrappers_stay_latex() -> None:
    assert parse_number(r"\text{" * 6 + "18" + "}" * 6, EN) == 18
    assert parse_number(r"\text{" * 9 + "18" + "}" * 9, EN) is None


def test_plain_text_is_left_alone() -> None:
    assert plain_text("  18  apples ") == "18 apples"
