"""Chains of additions and subtractions of single digits, and those that the corpus must not contain.

The demo uses reasoning_gym's `chain_sum` with 3-4 terms of one digit. Question i of seed s only depends on s + i, so
`held_out()` contains the first `HELD_OUT_COUNT` questions of seed 0, among them the demo's training, validation and
test problems.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from grpo_gsm8k.data.reasoning import import_reasoning_gym

HELD_OUT_COUNT = 10_000
DEMO_PARAMS = {"min_terms": 3, "max_terms": 4, "min_digits": 1, "max_digits": 1}
QUESTION = "State the final answer to the following arithmetic problem: {expression} ="
PROMPT = "Question: {question}\nAnswer:"


@dataclass(frozen=True, slots=True)
class Sum:
    """A chain: `3 - 4 + 5` has the terms (3, 4, 5) and the signs ("-", "+"); no term is negative."""

    terms: tuple[int, ...]
    signs: tuple[str, ...]  # one fewer than terms; separate because the text `3 - 0` differs from `3 + 0`

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
    """Compute one step of a chain."""
    return left + right if sign == "+" else left - right


def draw(rng: random.Random, terms: int) -> Sum:
    """Draw a chain of `terms` single digits."""
    return Sum(tuple(rng.randrange(10) for _ in range(terms)), tuple(rng.choice("+-") for _ in range(terms - 1)))


def from_expression(expression: str) -> Sum:
    """Parse `Sum.expression`."""
    parts = expression.split()
    return Sum(tuple(int(part) for part in parts[::2]), tuple(parts[1::2]))


def demo_problems(start: int, count: int) -> list[Sum]:
    """Return reasoning_gym's questions for seeds start, start + 1, ... with the demo's parameters; some recur."""
    items = import_reasoning_gym().create_dataset("chain_sum", size=count, seed=start, **DEMO_PARAMS)
    return [from_expression(item["metadata"]["expression"]) for item in items]


@cache
def held_out() -> frozenset[str]:
    """Return the expressions that the corpus never contains."""
    return frozenset(problem.expression for problem in demo_problems(0, HELD_OUT_COUNT))
