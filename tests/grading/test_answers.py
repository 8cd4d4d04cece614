"""Verdicts of texts: this table is the contract of the answer parser."""

from __future__ import annotations

import ast
import json
import random
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import pytest

from grpo_gsm8k.grading import answers, completion, notation, units
from grpo_gsm8k.grading.answers import (
    AnswerFormat,
    Locale,
    canonical,
    extract,
    grade,
    gsm8k_gold,
    parse_number,
    same_number,
)

GSM8K = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k"
HASH, BOXED, ANSWER, LAST = AnswerFormat.HASH, AnswerFormat.BOXED, AnswerFormat.ANSWER, AnswerFormat.LAST_NUMBER
EN, TR = Locale.EN, Locale.TR

NUMBERS: list[tuple[str, Locale, str | None]] = [
    # plain numbers, and the text allowed around them
    ("18", EN, "18"),
    ("18.0", EN, "18"),
    ("18.00", EN, "18"),
    ("18.", EN, "18"),
    ("018", EN, "18"),
    ("0", EN, "0"),
    ("-0", EN, "0"),
    (".5", EN, "0.5"),
    ("-.5", EN, "-0.5"),
    ("$18", EN, "18"),
    ("\\$18", EN, "18"),
    ("$ 18.50", EN, "18.5"),
    ("$18$", EN, "18"),
    ("€18", EN, "18"),
    ("18€", EN, "18"),
    ("USD 18", EN, "18"),
    ("18 dollars", EN, "18"),
    ("18 dollars.", EN, "18"),
    ("18 miles/hour", EN, "18"),
    ("18/day", EN, "18"),
    ("18-year-old", EN, "18"),
    ("50%", EN, "50"),
    ("50\\%", EN, "50"),
    ("90^\\circ", EN, "90"),
    ("90°", EN, "90"),
    ("18 (eighteen)", EN, "18"),
    ("(18)", EN, "18"),
    ("x = 18", EN, "18"),
    ("= 18", EN, "18"),
    ("**18**", EN, "18"),
    ("** 18", EN, "18"),
    ("*18*", EN, "18"),
    ("`18`", EN, "18"),
    ("\\(18\\)", EN, "18"),
    ("18\\text{ apples}", EN, "18"),
    ("18~\\text{apples}", EN, "18"),
    ("\\text{18}", EN, "18"),
    ("18\\,\\mathrm{cm}^2", EN, "18"),
    ("18 cm²", EN, "18"),
    ("\\boxed{18}", EN, "18"),
    ("18\u00a0kg", EN, "18"),
    # signs
    ("-5", EN, "-5"),
    ("+5", EN, "5"),
    ("- 5", EN, "-5"),
    ("\u22125", EN, "-5"),
    ("-$5", EN, "-5"),
    ("$-5", EN, "-5"),
    ("$-5$", EN, "-5"),
    ("--5", EN, None),
    ("-$-5", EN, None),
    # grouping
    ("1,234", EN, "1234"),
    ("1,234.50", EN, "1234.5"),
    ("12,345,678", EN, "12345678"),
    ("1{,}234", EN, "1234"),
    ("1\\,234", EN, "1234"),
    ("1,\\!234", EN, "1234"),
    ("1,234,", EN, "1234"),
    ("1,8", EN, None),
    ("1,80", EN, None),
    ("12,34,567", EN, None),
    ("1234,567", EN, None),
    ("0,125", EN, None),
    ("1,,234", EN, None),
    ("1.234,50", EN, None),
    ("1.2.3", EN, None),
    ("1 234", EN, None),
    (",5", EN, None),
    # Turkish notation
    ("1,8", TR, "1.8"),
    ("1,80 TL", TR, "1.8"),
    (",5", TR, "0.5"),
    ("1.234", TR, "1234"),
    ("1.234,50", TR, "1234.5"),
    ("3{,}5", TR, "3.5"),
    ("1\\,234", TR, "1234"),
    ("₺1.234.567", TR, "1234567"),
    ("%25", TR, "25"),
    ("18'dir", TR, "18"),
    ("18'e", TR, "18"),
    ("18 lira", TR, "18"),
    ("18.", TR, "18"),
    ("1.8", TR, None),
    ("0.125", TR, None),
    ("1,234.50", TR, None),
    ("5 bin", TR, None),
    ("3 buçuk", TR, None),
    ("5 bins", EN, "5"),
    # fractions, in lowest terms only
    ("1/2", EN, "0.5"),
    ("-3/4", EN, "-0.75"),
    ("\\frac{1}{2}", EN, "0.5"),
    ("-\\dfrac{7}{2}", EN, "-3.5"),
    ("1/2 cup", EN, "0.5"),
    ("36/2", EN, None),
    ("2/4", EN, None),
    ("5/1", EN, None),
    ("1/0", EN, None),
    ("2 1/2", EN, "2.5"),
    ("2\\frac{1}{2}", EN, "2.5"),
    ("1/2/3", EN, None),
    # no number, several numbers, numbers with a scale
    ("", EN, None),
    ("   ", EN, None),
    ("eighteen", EN, None),
    ("None", EN, None),
    ("nan", EN, None),
    ("inf", EN, None),
    ("Step 1: add them", EN, None),
    ("12 apples and 3 pears", EN, None),
    ("3-5", EN, None),
    ("3:30", EN, None),
    ("16 + 2", EN, None),
    ("16 + x", EN, None),
    ("2*9", EN, None),
    ("2**3", EN, None),
    ("2\\(3\\)", EN, None),
    ("2\\times 3", EN, None),
    ("3^2", EN, None),
    ("3²", EN, None),
    ("2½", EN, None),
    ("½", EN, None),
    ("٤٢", EN, None),
    ("5x", EN, None),
    ("5\\pi", EN, None),
    ("5π", EN, None),
    ("\\sqrt{2}", EN, None),
    ("5!=120", EN, None),
    ("5 million", EN, None),
    ("5k", EN, None),
    ("2 dozen", EN, None),
    ("3 and a half", EN, None),
    ("0.333...", EN, None),
    ("1e5", EN, None),
    ("1e999999", EN, None),
    ("1E-5", EN, None),
    ("0x10", EN, None),
    ("1_000", EN, None),
    ("18<|endoftext|>", EN, None),
    ("__import__('os')", EN, None),
    ("9" * 40, EN, "9" * 40),
    ("9" * 41, EN, None),
    ("18 " + "a" * 200, EN, None),
]


@pytest.mark.parametrize(("raw", "locale", "expected"), NUMBERS)
def test_parse_number(raw: str, locale: Locale, expected: str | None) -> None:
    number = parse_number(raw, locale)
    assert (None if number is None else canonical(number)) == expected


NEXT_PROBLEM = "\n\nQuestion: Tom has 3 cats.\nAnswer: He has #### 3 and \\boxed{3}\n#### 3\nANSWER: 3"
TEXTS: list[tuple[str, AnswerFormat, Locale, str | None, str | None]] = [
    # text, format, locale, extracted, number
    ("16 - 3 - 4 = 9\n9 * 2 = 18\n#### 18", HASH, EN, "18", "18"),
    ("####18", HASH, EN, "18", "18"),
    ("#### 18\r\nDone.", HASH, EN, "18", "18"),
    ("#### $1,234.50", HASH, EN, "$1,234.50", "1234.5"),
    ("#### -5", HASH, EN, "-5", "-5"),
    ("#### \\boxed{18}", HASH, EN, "\\boxed{18}", "18"),
    ("**#### 18**", HASH, EN, "18**", "18"),
    ("I will end with #### <number>.\n#### 18", HASH, EN, "18", "18"),
    ("#### 17\nNo, wait.\n#### 18", HASH, EN, "18", "18"),
    ("#### 18\n#### oops", HASH, EN, "oops", None),
    ("#### 18 ####", HASH, EN, "", None),
    ("#### Step 1: add\n1 + 1 = 2", HASH, EN, "Step 1: add", None),
    ("#### Step 1: add\n#### 2", HASH, EN, "2", "2"),
    ("##### 18", HASH, EN, None, None),
    ("### 18", HASH, EN, None, None),
    ("#### \n18", HASH, EN, "", None),
    ("The answer is 18.", HASH, EN, None, None),
    ("", HASH, EN, None, None),
    ("#### 1,8", HASH, EN, "1,8", None),
    ("#### 1,8", HASH, TR, "1,8", "1.8"),
    ("#### 1.250 TL", HASH, TR, "1.250 TL", "1250"),
    ("#### 18" + NEXT_PROBLEM, HASH, EN, "18", "18"),
    ("#### 18\n\nQ: Tom?\nA: #### 3", HASH, EN, "18", "18"),
    ("#### 18\n**Problem 2:** Tom?\n#### 3", HASH, EN, "18", "18"),
    ("#### 18\n#### Question: Tom?\n#### 3", HASH, EN, "18", "18"),
    ("#### 18\nHuman: thanks\n#### 3", HASH, EN, "18", "18"),
    ("#### 18\nSoru: Ali?\n#### 3", HASH, TR, "18", "18"),
    ("Question: Janet has ducks.\n#### 18", HASH, EN, "18", "18"),
    ("Problem: ducks, #### unknown\nQuestion: how many?\n#### 18", HASH, EN, "18", "18"),
    ("So \\boxed{18}.", BOXED, EN, "18", "18"),
    ("\\boxed{18 \\text{ dollars}}", BOXED, EN, "18 \\text{ dollars}", "18"),
    ("\\boxed{\\$1{,}234.50}", BOXED, EN, "\\$1{,}234.50", "1234.5"),
    ("\\boxed{\\frac{1}{2}}", BOXED, EN, "\\frac{1}{2}", "0.5"),
    ("\\boxed{\\boxed{18}}", BOXED, EN, "18", "18"),
    ("\\boxed {18}", BOXED, EN, "18", "18"),
    ("\\boxed{\n18\n}", BOXED, EN, "18", "18"),
    ("\\boxed{1}, then \\boxed{2}", BOXED, EN, "2", "2"),
    ("\\boxed{\\{18\\}}", BOXED, EN, "\\{18\\}", None),
    ("\\boxed{18", BOXED, EN, "", None),
    ("\\boxed{17} or \\boxed{18", BOXED, EN, "", None),
    ("\\boxed{}", BOXED, EN, "", None),
    ("boxed{18}", BOXED, EN, None, None),
    ("#### 18", BOXED, EN, None, None),
    ("\\boxed{3{,}5}", BOXED, TR, "3{,}5", "3.5"),
    ("\\boxed{18}" + NEXT_PROBLEM, BOXED, EN, "18", "18"),
    ("ANSWER: 42", ANSWER, EN, "42", "42"),
    ("answer : 42.", ANSWER, EN, "42.", "42"),
    ("**Answer:** 42", ANSWER, EN, "** 42", "42"),
    ("**Answer**: $42", ANSWER, EN, "$42", "42"),
    ("The final answer: 42 apples", ANSWER, EN, "42 apples", "42"),
    ("ANSWER: The total is 42", ANSWER, EN, "The total is 42", None),
    ("ANSWER:", ANSWER, EN, "", None),
    ("ANSWER 42", ANSWER, EN, None, None),
    ("The answer is 42", ANSWER, EN, None, None),
    ("Cevap: 42,5 TL", ANSWER, TR, "42,5 TL", "42.5"),
    ("ANSWER: 42" + NEXT_PROBLEM, ANSWER, EN, "42", "42"),
    ("First 3, then 5, so 18.", LAST, EN, "18", "18"),
    ("It costs $1,234.50.", LAST, EN, "$1,234.50", "1234.5"),
    ("It costs $1{,}234.", LAST, EN, "$1,234", "1234"),
    ("The change is -5 degrees", LAST, EN, "-5", "-5"),
    ("The change is -$5", LAST, EN, "-$5", "-5"),
    ("pages 3-5", LAST, EN, "5", "5"),
    ("8 -5", LAST, EN, "-5", "-5"),
    ("- 5 apples", LAST, EN, "5", "5"),
    ("He drinks 2 l of H2O", LAST, EN, "2", "2"),
    ("It is \\frac{1}{2}", LAST, EN, "1/2", "0.5"),
    ("It is 1e999999", LAST, EN, "1e999999", None),
    ("It is 2\\frac{1}{2}", LAST, EN, "2 1/2", "2.5"),
    ("It is 2 1/2", LAST, EN, "2 1/2", "2.5"),
    ("It is $-\\frac{1}{2}$", LAST, EN, "-1/2", "-0.5"),
    ("It is **-5**", LAST, EN, "-5", "-5"),
    ("10/5", LAST, EN, "10/5", None),
    ("1, 2, 3", LAST, EN, "3", "3"),
    ("no number here", LAST, EN, None, None),
    ("", LAST, EN, None, None),
    ("Toplam 1.234,5 lira.", LAST, TR, "1.234,5", "1234.5"),
    ("It is 18." + NEXT_PROBLEM, LAST, EN, "18", "18"),
    # typical model solutions: units, prices, percentages, arithmetic after the marker
    ("Let's see.\n\n#### 1,080 minutes per week.\n", HASH, EN, "1,080 minutes per week.", "1080"),
    ("She earns $18 a day.\n#### $18.00 per day", HASH, EN, "$18.00 per day", "18"),
    ("####  \t 42  \t\n", HASH, EN, "42", "42"),
    ("#### 42\n\n---\n\n### Explanation\nWe added 40 and 2.", HASH, EN, "42", "42"),
    ("#### Answer: 42", HASH, EN, "Answer: 42", None),
    ("#### 25% of 80 is 20", HASH, EN, "25% of 80 is 20", None),
    ("#### 10:30 AM", HASH, EN, "10:30 AM", None),
    ("#### 5 + 3 = 8", HASH, EN, "5 + 3 = 8", None),
    ("#### 7\n\nExercise 12: A baker sells 9 rolls.\n#### 9", HASH, EN, "7", "7"),
    ("48/2=<<48/2=24>>24\n48+24=<<48+24=72>>72\n#### 72", HASH, EN, "72", "72"),
    ("#### 3/4 of the cake", HASH, EN, "3/4 of the cake", "0.75"),
    ("#### -$1,200.00", HASH, EN, "-$1,200.00", "-1200"),
    ("Toplam 12 elma.\n#### 12 elma", HASH, TR, "12 elma", "12"),
    ("#### ₺1.250,75", HASH, TR, "₺1.250,75", "1250.75"),
    ("#### %12,5", HASH, TR, "%12,5", "12.5"),
    ("#### 1,250.75", HASH, TR, "1,250.75", None),
    ("#### 12.500'dür.", HASH, TR, "12.500'dür.", "12500"),
    ("#### 3 bin 500 lira", HASH, TR, "3 bin 500 lira", None),
    ("#### 2,5 milyon TL", HASH, TR, "2,5 milyon TL", None),
    ("#### -0,5 derece", HASH, TR, "-0,5 derece", "-0.5"),
    ("#### 1.8", HASH, TR, "1.8", None),
    ("#### Cevap: 42", HASH, TR, "Cevap: 42", None),
    ("#### 18\n**Soru 2:** Ayşe'nin kaç kalemi var?\n#### 3", HASH, TR, "18", "18"),
    # LaTeX of math models
    ("\\[\n\\boxed{42}\n\\]", BOXED, EN, "42", "42"),
    ("$$\\boxed{x = 7}$$", BOXED, EN, "x = 7", "7"),
    ("\\boxed{\\text{42 apples}}", BOXED, EN, "\\text{42 apples}", "42"),
    ("\\boxed{\\textbf{(C) } 42}", BOXED, EN, "\\textbf{(C) } 42", None),
    ("\\boxed{10\\%}", BOXED, EN, "10\\%", "10"),
    ("\\boxed{12\\ \\text{hours}}", BOXED, EN, "12\\ \\text{hours}", "12"),
    ("\\boxed{6\\text{ and }8}", BOXED, EN, "6\\text{ and }8", None),
    ("\\boxed{10^{3}}", BOXED, EN, "10^{3}", None),
    ("\\boxed{-\\frac{3}{4}}", BOXED, EN, "-\\frac{3}{4}", "-0.75"),
    ("\\boxed{3.0\\overline{3}}", BOXED, EN, "3.0\\overline{3}", None),
    ("\\boxed{\\approx 5}", BOXED, EN, "\\approx 5", None),
    ("It is \\boxed{5}. However, \\boxed{\\text{undefined}}", BOXED, EN, "\\text{undefined}", None),
    ("\\boxed{1,\\!234,\\!567}", BOXED, EN, "1,\\!234,\\!567", "1234567"),
    ("\\boxed{24\\text{ cm}^2}", BOXED, EN, "24\\text{ cm}^2", "24"),
    ("\\fbox{5}", BOXED, EN, None, None),
    ("\\boxed{12{,}5\\text{ TL}}", BOXED, TR, "12{,}5\\text{ TL}", "12.5"),
    ("\\boxed{1.250}", BOXED, TR, "1.250", "1250"),
    ("\\boxed{1{.}250{,}5}", BOXED, TR, "1{.}250{,}5", "1250.5"),
    ("\\boxed{\\%20}", BOXED, TR, "\\%20", "20"),
    ("\\boxed{12.5}", BOXED, TR, "12.5", None),
    ("\\boxed{\\text{15 gün}}", BOXED, TR, "\\text{15 gün}", "15"),
    ("\\boxed{\\frac{7}{2}}", BOXED, TR, "\\frac{7}{2}", "3.5"),
    ("\\boxed{5\\text{ bin}}", BOXED, TR, "5\\text{ bin}", None),
    ("\\boxed{18}\nSoru: Ali'nin kaç kedisi var?\n\\boxed{3}", BOXED, TR, "18", "18"),
    # "ANSWER:" and "Cevap:" in sentences, in Markdown, and again in an invented next problem
    ("Answer:\n42", ANSWER, EN, "", None),
    ("ANSWER: $1,234.56", ANSWER, EN, "$1,234.56", "1234.56"),
    ("My answer: 7. Wait, the answer: 8", ANSWER, EN, "8", "8"),
    ("ANSWER: 42\n\nUser: and 2+2?\nANSWER: 4", ANSWER, EN, "42", "42"),
    ("ANSWER: \\(42\\)", ANSWER, EN, "\\(42\\)", "42"),
    ("ANSWER: forty-two", ANSWER, EN, "forty-two", None),
    ("answers: 42", ANSWER, EN, None, None),
    ("ANSWER: -3.50 dollars", ANSWER, EN, "-3.50 dollars", "-3.5"),
    ("ANSWER: 42 (since 6 * 7 = 42)", ANSWER, EN, "42 (since 6 * 7 = 42)", None),
    ("__ANSWER__: 42", ANSWER, EN, None, None),
    ("Cevap: 1.250", ANSWER, TR, "1.250", "1250"),
    ("CEVAP : %15", ANSWER, TR, "%15", "15"),
    ("**Cevap:** 12,5 kg", ANSWER, TR, "** 12,5 kg", "12.5"),
    ("Cevap: 12.5 kg", ANSWER, TR, "12.5 kg", None),
    ("Doğru cevap: B) 42", ANSWER, TR, "B) 42", None),
    ("ANSWER: 3,14", ANSWER, TR, "3,14", "3.14"),
    ("Cevap: yaklaşık 20", ANSWER, TR, "yaklaşık 20", None),
    ("Cevap: 18\n\nSoru 2: Kaç?\nCevap: 3", ANSWER, TR, "18", "18"),
    ("Cevabım: 42", ANSWER, TR, None, None),
    # no marker: the last number of the text
    ("So Tom pays 3 * $4.50 = $13.50 in total.", LAST, EN, "$13.50", "13.5"),
    ("It takes 2.5 hours (150 minutes).", LAST, EN, "150", "150"),
    ("By 1999 the total was 12,000!", LAST, EN, "12,000", "12000"),
    ("He has 5 apples left in 2 baskets", LAST, EN, "2", "2"),
    ("x = -7.", LAST, EN, "-7", "-7"),
    ("It is 1,234,56", LAST, EN, "1,234,56", None),
    ("It costs $80 in room B12", LAST, EN, "$80", "80"),
    ("about 3.5e2 grams", LAST, EN, "3.5e2", None),
    ("A 50/50 split", LAST, EN, "50/50", None),
    ("Total: 20%.", LAST, EN, "20", "20"),
    ("Call 555-1234", LAST, EN, "1234", "1234"),
    ("She left at 7:45", LAST, EN, "45", "45"),
    ("Toplam 3 x 4,50 = 13,50 TL eder.", LAST, TR, "13,50", "13.5"),
    ("Fiyat ₺1.250 oldu.", LAST, TR, "₺1.250", "1250"),
    ("Oran %12,5'tir.", LAST, TR, "%12,5", "12.5"),
    ("Sonuç 12.5 çıktı.", LAST, TR, "12.5", None),
    ("Sıcaklık -4,5 derece", LAST, TR, "-4,5", "-4.5"),
    ("Hepsi 18'dir.\nSoru: Ali'nin 3 kedisi var mı?", LAST, TR, "18", "18"),
    ("Nüfus 1.000.000 kişi", LAST, TR, "1.000.000", "1000000"),
    ("Yarısı, yani 1/2 kalır.", LAST, TR, "1/2", "0.5"),
    ("Hiç kalmadı.", LAST, TR, None, None),
]


@pytest.mark.parametrize(("text", "fmt", "locale", "raw", "number"), TEXTS)
def test_extract_and_grade(text: str, fmt: AnswerFormat, locale: Locale, raw: str | None, number: str | None) -> None:
    assert extract(text, fmt, locale) == raw
    verdict = grade(text, number or "18", fmt, locale)
    assert verdict.extracted == raw
    assert verdict.value == (None if number is None else canonical(Decimal(number)))
    assert verdict.well_formed == verdict.correct == (number is not None)
    assert not grade(text, "987654", fmt, locale).correct


def test_the_table_covers_every_format_in_every_locale() -> None:
    counts = Counter((fmt, locale) for _, fmt, locale, _, _ in TEXTS)
    assert len({text for text, *_ in TEXTS}) >= 120
    assert min(counts[fmt, locale] for fmt in (HASH, BOXED, ANSWER, LAST) for locale in Locale) >= 9


def test_missing_numbers_are_not_equal() -> None:
    assert not same_number(None, None)
    assert not same_number(None, Decimal(0))
    assert same_number(Decimal("18.0"), Decimal("18"))


def test_exact_comparison_where_floats_fail() -> None:
    assert grade("#### 0.3", "0.30", HASH, EN).correct
    assert not grade("#### 9007199254740993", "9007199254740992", HASH, EN).correct
    assert grade("#### 1/3", "1/3", HASH, EN).correct
    assert not grade("#### " + "0." + "3" * 39, "1/3", HASH, EN).correct


@pytest.mark.parametrize("gold", ["", "none", "1,8", "3 or 4"])
def test_bad_gold_is_an_error(gold: str) -> None:
    with pytest.raises(ValueError, match="gold answer"):
        grade("#### 18", gold, HASH, EN)


def test_gold_keeps_english_notation_in_turkish() -> None:
    assert grade("#### 1.234,5", "1234.5", HASH, TR).correct
    assert grade("#### 1,5", "1.5", HASH, TR).correct


@pytest.mark.parametrize(
    ("answer", "gold"),
    [("x\n#### 1,234", "1234"), ("#### 1\n#### -2", "-2"), ("#### 2.50", "2.5"), ("#### 008", "8")],
)
def test_gsm8k_gold(answer: str, gold: str) -> None:
    assert gsm8k_gold(answer) == gold


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("18", "no '####'"),
        ("", "no '####'"),
        ("#### many", "'many' after"),
        ("#### ", "'' after"),
        ("#### 1/3", "no decimal form"),
    ],
)
def test_gsm8k_gold_names_the_reason(answer: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        gsm8k_gold(answer)


@pytest.mark.skipif(not GSM8K.is_dir(), reason="needs shared/data/gsm8k")
@pytest.mark.parametrize(("name", "count"), [("train", 7473), ("test", 1319)])
def test_all_gsm8k_golds_parse(name: str, count: int) -> None:
    rows = [json.loads(line) for line in (GSM8K / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == count
    for row in rows:
        gold = gsm8k_gold(row["answer"])
        assert gold == row["answer"].split("####")[1].strip().replace(",", "")
        assert grade(row["answer"], gold, HASH, EN).correct


@pytest.mark.skipif(not GSM8K.is_dir(), reason="needs shared/data/gsm8k")
@pytest.mark.parametrize(
    ("name", "count"),
    [pytest.param("train", 7473, marks=pytest.mark.slow), ("test", 1319), ("test_socratic", 1319)],
)
def test_all_gsm8k_solutions_are_right_for_their_own_gold_only(name: str, count: int) -> None:
    rows = [json.loads(line) for line in (GSM8K / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == count
    for row in rows:
        steps, _, raw = row["answer"].rpartition("####")
        gold = gsm8k_gold(row["answer"])
        wrong = canonical(Decimal(gold) + 1)
        for text, fmt in [
            (row["answer"], HASH),
            (f"<think>#### {wrong}</think>{row['answer']}\nuser\n#### {wrong}", HASH),
            (f"{steps}So it is $\\boxed{{{raw.strip()}}}$.", BOXED),
            (f"{steps}The answer is {raw.strip()}.", LAST),
        ]:
            assert grade(text, gold, fmt, EN).correct, text
            assert not grade(text, wrong, fmt, EN).correct, text


def test_written_numbers_are_read_back() -> None:
    rng = random.Random(0)
    for _ in range(500):
        number = Decimal(rng.randrange(-(10**9), 10**9)).scaleb(-rng.randrange(0, 4))
        plain, grouped = canonical(number), f"{number:,f}"
        turkish = grouped.translate(str.maketrans(",.", ".,"))
        assert "E" not in plain
        for text, locale in [(plain, EN), (grouped, EN), (f"{grouped} apples.", EN), (turkish, TR)]:
            assert same_number(parse_number(text, locale), number), text
        for fmt, text in [(HASH, f"#### {grouped}"), (BOXED, f"\\boxed{{{grouped}}}"), (ANSWER, f"ANSWER: {grouped}")]:
            assert grade(text, plain, fmt, EN).correct


def test_noise_never_raises() -> None:
    rng = random.Random(1)
    tokens = [
        "#### ",
        "\\boxed{",
        "}",
        "{",
        "\\",
        "ANSWER:",
        "1",
        "2,",
        ".5",
        "-",
        "$",
        "/",
        "\n",
        "Question:",
        " ",
        "e9",
    ]
    for _ in range(500):
        text = "".join(rng.choices(tokens, k=rng.randrange(30)))
        for fmt in (HASH, BOXED, ANSWER, LAST):
            for locale in Locale:
                verdict = grade(text, "7", fmt, locale)
                assert verdict.well_formed == (verdict.value is not None)
                assert verdict.well_formed or not verdict.correct


HOSTILE = [
    "#", "#### ", "#### 1", "\\boxed{", "\\boxed", "{", "}", "\\", "answer", "answer*", "answer ", "ANSWER: 1 ",
    "1", "1,", "1.", "1/", "1 ", "-", "- ", "$", " ", "\t", "\n", "Q", "Q:", "Question: 1\n", "#### 1e9", "e9",
    "123\u00a0", "1'234'", "\\boxed{1} ", "user\n", "<think>", "</think>", "\\left(", "\\text{\\text{",
    "5 million ",
    "\\frac{", "\\frac{1}", "\\frac{ ", "\\text{", "\\text ", "\\text{a}", "1\\,", "^{2", "a^2", "**", "(", "( ",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_linear_time_on_100k_characters(unit: str) -> None:
    text = unit * (100_000 // len(unit)) + "!"
    for fmt, prefix in [(HASH, "#### ("), (BOXED, "\\boxed{x"), (ANSWER, "ANSWER: 1"), (LAST, "1")]:
        start = time.process_time()
        grade(text, "1", fmt, EN)
        grade(prefix + text, "1", fmt, EN)
        assert time.process_time() - start < 1.0, fmt


@pytest.mark.parametrize("unit", HOSTILE)
def test_longest_answer_text_is_cheap(unit: str) -> None:
    raw = ("(" + unit * 200)[: answers.MAX_ANSWER_CHARS - 1] + "!"
    start = time.process_time()
    parse_number(raw, EN)
    assert time.process_time() - start < 0.2


@pytest.mark.parametrize("module", [answers, completion, notation, units], ids=lambda module: module.__name__)
def test_only_the_standard_library_and_no_evaluation(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    own = {f"grpo_gsm8k.grading.{name}" for name in ("completion", "notation", "units")}
    assert imported <= {"__future__", "math", "re", "collections.abc", "dataclasses", "decimal", "enum"} | own
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"eval", "exec", "compile", "__import__"}
