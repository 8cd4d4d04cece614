"""Chains of additions and subtractions, and which of them the corpus must not contain.

The demo asks reasoning_gym's `chain_sum` questions with 2-3 terms of 1-2 digits, where all numbers of a question have
the same number of digits. Question i of seed s depends on s + i alone, so `held_out()` lists what the first
`HELD_OUT_COUNT` questions of seed 0 ask: the demo's training, validation and test problems are among them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

HELD_OUT_COUNT = 10_000
DEMO_PARAMS = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}
QUESTION = "State the final answer to the following arithmetic problem: {expression} ="
PROMPT = "Question: {question}\nAnswer:"


@dataclass(frozen=True, slots=True)
class Problem:
    """Signed terms: (15, -43, -75) is `15 - 43 - 75`. The first term is never negative."""

    terms: tuple[int, ...]
    signs: tuple[str, ...]  # one fewer than terms; kept apart because `3 - 0` is not `3 + 0`

    @property
    def expression(self) -> str:
        parts = [str(self.terms[0])]
        for sign, term in zip(self.signs, self.terms[1:], strict=True):
            parts += [sign, str(term)]
        return " ".join(parts)

    @property
    def prompt(self) -> str:
        return PROMPT.format(question=QUESTION.format(expression=self.expression))

    @property
    def answer(self) -> int:
        total = self.terms[0]
        for sign, term in zip(self.signs, self.terms[1:], strict=True):
            total = apply(total, sign, term)
        return total


def apply(left: int, sign: str, right: int) -> int:
    """One step of a chain."""
    return left + right if sign == "+" else left - right


def draw(rng: random.Random, terms: int, digits: tuple[int, ...]) -> Problem:
    """A problem whose numbers each have one of the given digit counts."""
    values = tuple(_number(rng, rng.choice(digits)) for _ in range(terms))
    return Problem(values, tuple(rng.choice("+-") for _ in range(terms - 1)))


def _number(rng: random.Random, digits: int) -> int:
    return rng.randint(0 if digits == 1 else 10 ** (digits - 1), 10**digits - 1)


def from_expression(expression: str) -> Problem:
    """The inverse of `Problem.expression`."""
    parts = expression.split()
    return Problem(tuple(int(part) for part in parts[::2]), tuple(parts[1::2]))


def demo_problems(start: int, count: int) -> list[Problem]:
    """What reasoning_gym asks under seeds start, start + 1, ... with the demo's parameters."""
    import reasoning_gym  # type: ignore[import-untyped,unused-ignore]  # lazy: it imports for two seconds

    items = reasoning_gym.create_dataset("chain_sum", size=count, seed=start, **DEMO_PARAMS)
    return [from_expression(item["metadata"]["expression"]) for item in items]


def held_out() -> frozenset[str]:
    """Expressions that occur nowhere in the corpus, neither as a question nor as a step."""
    return frozenset(problem.expression for problem in demo_problems(0, HELD_OUT_COUNT))
