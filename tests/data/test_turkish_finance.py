"""Synthetic Turkish problems: reproducible, distinct, in Turkish notation, and right when computed another way."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from cli import load_config
from grpo_gsm8k.data import turkish_finance
from grpo_gsm8k.data.prepare import load_split, prepare_data
from grpo_gsm8k.data.problems import RowRules, read_problems
from grpo_gsm8k.data.responses import own_answers
from grpo_gsm8k.data.turkish_finance import COUNT, TURKISH, WordProblem, turkish, word_problems
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import AnswerFormat, Locale, grade, parse_number
from scripts.turkish_problems import main


def test_numbers_in_turkish_notation() -> None:
    assert [turkish(n) for n in (7, 1_250, 1_250_000)] == ["7", "1.250", "1.250.000"]
    golds = [problem.gold for problem in word_problems()]
    assert all(re.fullmatch(r"\d{1,3}(\.\d{3})*,\d\d", gold) for gold in golds)
    assert sum("." in gold for gold in golds) > 300  # most have a thousands dot


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one", "same", "other")]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        main(file, COUNT, seed)
    one, same, other = (file.read_bytes() for file in files)
    assert one == same != other
    problems = read_problems(files[0], "tr", RowRules(TURKISH))
    assert len({problem.question for problem in problems}) == len(problems) == 542


def test_splits_and_answers(tmp_path: Path) -> None:
    config = load_config(["command=data", "data=turkish_finance", "prompt.locale=tr", "prompt.answer_format=hash"])
    folder = prepare_data(config.data, tmp_path, config.prompt.locale)
    assert (folder.train + folder.val, folder.test) == (442, 100)
    train = load_split(folder, "train")
    for problem, text in zip(train, own_answers(config, train), strict=True):
        assert grade(text.response, problem.gold, AnswerFormat.HASH, Locale.TR).correct


def test_more_problems_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turkish_finance, "KINDS", (lambda rng: WordProblem(f"{rng.randint(1, 3)}?", "1", Decimal(1)),))
    assert len(word_problems(3)) == 3
    with pytest.raises(UserError, match="only about 3 distinct questions, not 4"):
        word_problems(4)


def numbers(problem: WordProblem) -> list[Fraction]:
    """All numbers of a question in their order, without those of the rounding note."""
    found = re.findall(r"\d[\d.]*(?:,\d+)?", problem.question)
    return [Fraction(number.rstrip(".").replace(".", "").replace(",", ".")) for number in found]


def simple(n: list[Fraction], q: str) -> Fraction:
    interest = n[0] * n[1] / 100 * n[2] / 12
    return n[0] + interest if "toplam" in q else interest


def days(n: list[Fraction], _: str) -> Fraction:
    return n[0] * n[1] / 100 * n[2] / 360


def compound(n: list[Fraction], q: str) -> Fraction:
    periods = {"yılda bir": 1, "altı ayda": 2, "üç ayda": 4}
    per_year = next(count for words, count in periods.items() if words in q)
    total = n[0]
    for _ in range(int(n[2]) * per_year):
        total += total * n[1] / 100 / per_year
    return total


def bill(n: list[Fraction], q: str) -> Fraction:
    nominal, to_wait, rate = n[:3]
    share = rate / 100 * to_wait / 360
    return nominal - nominal * share if "dış" in q else nominal / (1 + share)


def savings(n: list[Fraction], _: str) -> Fraction:
    total = Fraction(0)
    for _month in range(int(n[2])):
        total = total * (1 + n[1] / 100) + n[0]
    return total


def loan(n: list[Fraction], _: str) -> Fraction:
    """The payment whose present values sum up to the loan."""
    return n[0] / sum(1 / (1 + n[1] / 100) ** month for month in range(1, int(n[2]) + 1))


def price(n: list[Fraction], _: str) -> Fraction:
    risen = n[0] + n[0] * n[1] / 100
    return risen - risen * n[2] / 100


def vat(n: list[Fraction], q: str) -> Fraction:
    return n[0] / (1 + n[1] / 100) if q.startswith("KDV dahil") else n[0] * (1 + n[1] / 100)


Recompute = Callable[[list[Fraction], str], Fraction]
KINDS: dict[str, Recompute] = {
    "ay vadeli": simple,
    "günlüğüne": days,
    "nominal faiz": compound,
    "iskonto": bill,
    "Her ayın sonunda": savings,
    "taksitle": loan,
    "zam yapılıyor": price,
    "KDV": vat,
}


@pytest.mark.parametrize("words", KINDS)
def test_results_computed_another_way(words: str) -> None:
    problems = [problem for problem in word_problems() if words in problem.question]
    assert len(problems) > 40
    for problem in problems:
        exact = KINDS[words](numbers(problem), problem.question)
        gold = parse_number(problem.gold, Locale.TR)
        assert gold is not None
        assert abs(Fraction(gold) - exact) <= Fraction(1, 200), problem
