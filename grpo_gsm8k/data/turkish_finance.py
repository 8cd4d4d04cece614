"""Synthetic word problems of finance mathematics in Turkish, generated offline from a seed.

They stand in for the 542 questions of seed S4, which are not public: interest, discount, annuities, percentages and
VAT, with decimal commas and thousands dots. All numbers are computed with Decimal, and every question states how its
result is to be rounded.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import TYPE_CHECKING

from grpo_gsm8k.data.gold import Notation, gold_of_answer
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import Locale
from grpo_gsm8k.grading.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpo_gsm8k.config import DataConfig

COUNT = 542  # the number of questions of S4
TURKISH = Notation(Locale.TR, given=True)
_ROUNDING = "Sonucu virgülden sonra iki basamağa yuvarlayınız."
_YEAR = "Bir yılı 360 gün kabul ediniz."
_CENT = Decimal("0.01")
_DIGITS = 50  # of intermediate results
_DRAWS_PER_PROBLEM = 20  # give up when fewer than one draw in 20 is a question not seen before


@dataclass(frozen=True, slots=True)
class WordProblem:
    """A question, the formula with its numbers as the worked step, and the exact result."""

    question: str
    step: str
    result: Decimal

    @property
    def gold(self) -> str:
        """The rounded result in Turkish notation: 1.234,50."""
        return turkish(self.result.quantize(_CENT, ROUND_HALF_UP))


def turkish(value: Decimal | int) -> str:
    """Write a number with thousands dots and a decimal comma; as many decimals as it has."""
    return f"{Decimal(value):,f}".translate(str.maketrans(",.", ".,"))


def word_problems(count: int = COUNT, seed: int = 0) -> list[WordProblem]:
    """Return `count` problems with distinct questions. Raises UserError if there are not that many."""
    rng = random.Random(seed)
    found: dict[str, WordProblem] = {}
    with localcontext() as context:
        context.prec = _DIGITS
        for draw in range(count * _DRAWS_PER_PROBLEM):
            problem = KINDS[draw % len(KINDS)](rng)
            found.setdefault(problem.question, problem)
            if len(found) == count:
                break
    if len(found) < count:
        raise UserError(f"turkish_finance has only about {len(found)} distinct questions, not {count}: lower the sizes")
    problems = list(found.values())
    rng.shuffle(problems)  # all kinds in every part of the list
    return problems


def answer_of(problem: WordProblem) -> str:
    """Return the worked answer in the format of GSM8K."""
    return f"{problem.step} = {problem.gold}\n#### {problem.gold}"


def load_turkish_finance(config: DataConfig) -> tuple[list[Problem], list[Problem]]:
    """Generate `train_size` problems (validation included) and `test_size` others."""
    made = word_problems(config.train_size + int(config.test_size), config.seed)
    train, test = made[: config.train_size], made[config.train_size :]
    return (
        [_problem(problem, f"train-{i:05d}") for i, problem in enumerate(train)],
        [_problem(problem, f"test-{i:05d}") for i, problem in enumerate(test)],
    )


def _problem(problem: WordProblem, problem_id: str) -> Problem:
    return Problem(problem_id, problem.question, answer_of(problem), gold_of_answer(answer_of(problem), TURKISH))


def _amount(rng: random.Random) -> int:
    """An amount of money in lira, in steps that people use."""
    step, most = rng.choice([(50, 5_000), (500, 50_000), (5_000, 500_000)])
    return rng.randrange(step * 4, most + 1, step)


def _rate(rng: random.Random, least: int, most: int) -> Decimal:
    """A percentage, sometimes with a half."""
    return Decimal(rng.randint(least * 2, most * 2)) / 2


def _simple_interest(rng: random.Random) -> WordProblem:
    capital, rate, months = _amount(rng), _rate(rng, 6, 48), rng.randint(2, 18)
    interest = capital * rate * months / 1200
    start = (
        f"Bir yatırımcı {turkish(capital)} TL'yi yıllık %{turkish(rate)} basit faiz oranıyla {months} ay vadeli "
        "bir hesaba yatırıyor."
    )
    step = f"{turkish(capital)} × {turkish(rate)} × {months} / 1.200"
    if rng.random() < 0.5:
        return WordProblem(f"{start} Vade sonunda elde edilecek faiz tutarı kaç TL'dir? {_ROUNDING}", step, interest)
    total = f"{turkish(capital)} + {step}"
    question = f"{start} Vade sonunda hesapta biriken toplam tutar (anapara ve faiz) kaç TL olur? {_ROUNDING}"
    return WordProblem(question, total, capital + interest)


def _days_of_interest(rng: random.Random) -> WordProblem:
    capital, rate, days = _amount(rng), _rate(rng, 6, 48), rng.randrange(15, 331, 5)
    question = (
        f"{turkish(capital)} TL, yıllık %{turkish(rate)} basit faiz oranı üzerinden {days} günlüğüne bankaya "
        f"yatırılıyor. Bu sürenin sonunda kaç TL faiz alınır? {_YEAR} {_ROUNDING}"
    )
    step = f"{turkish(capital)} × {turkish(rate)} × {days} / 36.000"
    return WordProblem(question, step, capital * rate * days / 36000)


def _compound_interest(rng: random.Random) -> WordProblem:
    capital, rate, years = _amount(rng), _rate(rng, 6, 40), rng.randint(2, 5)
    periods, often = rng.choice([(1, "yılda bir"), (2, "altı ayda bir"), (4, "üç ayda bir")])
    question = (
        f"{turkish(capital)} TL, yıllık %{turkish(rate)} nominal faiz oranıyla ve faiz {often} anaparaya eklenmek "
        f"üzere {years} yıllığına bileşik faize yatırılıyor. {years} yılın sonunda hesapta toplam kaç TL olur? "
        f"{_ROUNDING}"
    )
    step = f"{turkish(capital)} × (1 + {turkish(rate)} / {periods}00)^{years * periods}"
    return WordProblem(question, step, capital * (1 + rate / (100 * periods)) ** (years * periods))


def _bill_discount(rng: random.Random) -> WordProblem:
    nominal, rate, days = _amount(rng), _rate(rng, 12, 48), rng.randrange(30, 241, 5)
    outer = rng.random() < 0.5
    question = (
        f"Nominal değeri {turkish(nominal)} TL olan bir senet, vadesine {days} gün kala yıllık %{turkish(rate)} "
        f"iskonto oranıyla {'dış' if outer else 'iç'} iskonto yöntemine göre iskonto ettiriliyor. Senedin peşin "
        f"değeri kaç TL'dir? {_YEAR} {_ROUNDING}"
    )
    share = rate * days / 36000
    part = f"{turkish(rate)} × {days} / 36.000"
    if outer:
        return WordProblem(question, f"{turkish(nominal)} × (1 - {part})", nominal * (1 - share))
    return WordProblem(question, f"{turkish(nominal)} / (1 + {part})", nominal / (1 + share))


def _savings(rng: random.Random) -> WordProblem:
    payment, rate, months = _amount(rng), _rate(rng, 1, 4), rng.randrange(6, 37, 2)
    question = (
        f"Her ayın sonunda {turkish(payment)} TL yatırılan bir hesaba aylık %{turkish(rate)} bileşik faiz "
        f"uygulanıyor. Son ödemenin yapıldığı {months}. ayın sonunda hesapta toplam kaç TL birikir? {_ROUNDING}"
    )
    growth = rate / 100
    step = f"{turkish(payment)} × ((1 + {turkish(growth)})^{months} - 1) / {turkish(growth)}"
    return WordProblem(question, step, payment * ((1 + growth) ** months - 1) / growth)


def _loan(rng: random.Random) -> WordProblem:
    loan, rate, months = _amount(rng), _rate(rng, 1, 4), rng.randrange(6, 37, 2)
    question = (
        f"{turkish(loan)} TL tutarındaki bir kredi, aylık %{turkish(rate)} bileşik faiz oranıyla ve ay sonlarında "
        f"ödenecek {months} eşit taksitle geri ödenecektir. Bir taksitin tutarı kaç TL'dir? {_ROUNDING}"
    )
    growth = rate / 100
    step = f"{turkish(loan)} × {turkish(growth)} / (1 - (1 + {turkish(growth)})^-{months})"
    return WordProblem(question, step, loan * growth / (1 - (1 + growth) ** -months))


def _price_changes(rng: random.Random) -> WordProblem:
    price, rise, fall = _amount(rng), rng.randint(5, 60), rng.randint(5, 50)
    question = (
        f"Fiyatı {turkish(price)} TL olan bir ürüne önce %{rise} zam yapılıyor, ardından zamlı fiyat üzerinden "
        f"%{fall} indirim uygulanıyor. Ürünün son fiyatı kaç TL'dir? {_ROUNDING}"
    )
    step = f"{turkish(price)} × (1 + {rise} / 100) × (1 - {fall} / 100)"
    return WordProblem(question, step, Decimal(price) * (100 + rise) * (100 - fall) / 10000)


def _vat(rng: random.Random) -> WordProblem:
    price, rate = _amount(rng), rng.choice([1, 10, 20])
    if rng.random() < 0.5:
        question = (
            f"KDV hariç fiyatı {turkish(price)} TL olan bir ürünün KDV oranı %{rate} olduğuna göre, ürünün KDV dahil "
            f"fiyatı kaç TL'dir? {_ROUNDING}"
        )
        return WordProblem(question, f"{turkish(price)} × (1 + {rate} / 100)", Decimal(price) * (100 + rate) / 100)
    question = (
        f"KDV dahil fiyatı {turkish(price)} TL olan bir ürünün KDV oranı %{rate} olduğuna göre, ürünün KDV hariç "
        f"fiyatı kaç TL'dir? {_ROUNDING}"
    )
    return WordProblem(question, f"{turkish(price)} / (1 + {rate} / 100)", Decimal(price) * 100 / (100 + rate))


KINDS: tuple[Callable[[random.Random], WordProblem], ...] = (
    _simple_interest,
    _days_of_interest,
    _compound_interest,
    _bill_discount,
    _savings,
    _loan,
    _price_changes,
    _vat,
)
