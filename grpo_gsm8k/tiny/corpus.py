"""The pretraining corpus. It imitates a web corpus: worked solutions mixed with wrong and incomplete answers.

A question-and-answer document has one of four styles (weights in `STYLES`, for easy and hard questions):
- quick: the answer at once, `#### 12`. Most are wrong: they only use the first two numbers.
- worked: one line per step, then `#### 12`. A few have an error in one step.
- sentence: the steps, then `The answer is 12.`, which the grader does not accept.
- unfinished: the steps without a final line.
Three cheaper kinds of documents come first, because learning from full questions alone would take hours on one thread:
drills are single steps; exercises are worked solutions of a terse question; excerpts are worked solutions of a question
whose beginning is cut off at a random place.

As a result, the model can work out hard questions, but its most likely answer to them is a quick, mostly wrong one.
Reinforcement learning has to make the worked style more likely.

Contamination: no whole expression in `held_out` occurs in the corpus. The single steps of their solutions do occur, in
other questions and in drills: there are only about 900 of them, and they are the arithmetic that the model must know.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from grpo_gsm8k.tiny.sums import Sum, apply, draw, held_out

STYLES = {
    "easy": {"quick": 0.30, "worked": 0.44, "sentence": 0.16, "unfinished": 0.10},
    "hard": {"quick": 0.57, "worked": 0.21, "sentence": 0.14, "unfinished": 0.08},
}
QUICK_ERROR_SHARE = 0.85
WORKED_SLIP_SHARE = 0.05
TOTALS = range(-18, 28)  # possible results of a chain of up to three terms


@dataclass(frozen=True, slots=True)
class TextSpan:
    """A piece of text, in the loss only if `learned`."""

    text: str
    learned: bool


Document = tuple[TextSpan, ...]


class Corpus:
    """A seeded stream of documents."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._held_out = held_out()

    def drills(self, count: int) -> list[Document]:
        return [self._drill() for _ in range(count)]

    def exercises(self, count: int) -> list[Document]:
        return [self._exercise() for _ in range(count)]

    def excerpts(self, count: int) -> list[Document]:
        return [self._excerpt() for _ in range(count)]

    def answers(self, count: int) -> list[Document]:
        return [self._answer() for _ in range(count)]

    def _answer(self) -> Document:
        problem = self._problem()
        weights = STYLES["easy" if is_easy(problem) else "hard"]
        style = self._rng.choices(list(weights), list(weights.values()))[0]
        return TextSpan(problem.prompt, learned=False), TextSpan(" " + self._styled(problem, style), learned=True)

    def _exercise(self) -> Document:
        problem = self._problem()
        return _solved(problem, f"{problem.expression} =\nAnswer:")

    def _excerpt(self) -> Document:
        problem = self._problem()
        longest = problem.prompt.index(problem.expression)
        return _solved(problem, problem.prompt[self._rng.randint(0, longest) :])

    def _problem(self) -> Sum:
        while True:
            problem = draw(self._rng, self._rng.choice((3, 4)))
            if problem.expression not in self._held_out:
                return problem

    def _styled(self, problem: Sum, style: str) -> str:
        if style == "quick":
            wrong = self._rng.random() < QUICK_ERROR_SHARE
            return f"#### {quick_error(problem) if wrong else problem.answer}"
        slip_at = self._rng.randrange(len(problem.signs)) if self._rng.random() < WORKED_SLIP_SHARE else -1
        lines, total = steps(problem, slip_at, self._rng.choice((-2, -1, 1, 2)))
        endings = {"worked": [f"#### {total}"], "sentence": [f"The answer is {total}."], "unfinished": []}
        return "\n".join(lines + endings[style])

    def _drill(self) -> Document:
        left, sign, right = self._rng.choice(TOTALS), self._rng.choice("+-"), self._rng.randrange(10)
        return TextSpan(f"{left}{sign}{right}=", learned=False), TextSpan(f"{apply(left, sign, right)}\n", learned=True)


def _solved(problem: Sum, question: str) -> Document:
    lines, total = steps(problem)
    return TextSpan(question, learned=False), TextSpan(" " + "\n".join([*lines, f"#### {total}"]), learned=True)


def steps(problem: Sum, slip_at: int = -1, slip: int = 0) -> tuple[list[str], int]:
    """Return one line per operation, and the last result. Step `slip_at` is off by `slip`; later steps build on it."""
    total, lines = problem.terms[0], []
    for index, (sign, term) in enumerate(zip(problem.signs, problem.terms[1:], strict=True)):
        result = apply(total, sign, term) + (slip if index == slip_at else 0)
        lines.append(f"{total}{sign}{term}={result}")
        total = result
    return lines, total


def is_easy(problem: Sum) -> bool:
    """Return whether the corpus mostly works it out: three numbers and at most one subtraction."""
    return len(problem.terms) == 3 and problem.signs.count("-") < 2


def quick_error(problem: Sum) -> int:
    """Return the result of the first two numbers only."""
    return Sum(problem.terms[:2], problem.signs[:1]).answer


def corpus_hash(documents: list[Document]) -> str:
    """Return the sha256 over all documents in order."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update("".join(f"{span.text}\x1f{span.learned}\x1e" for span in document).encode() + b"\x1d")
    return digest.hexdigest()
