"""The pretraining corpus: a model of a web corpus, in which skill and bad habits stand side by side.

A question-and-answer document has one of four styles (weights in `STYLES`, for easy and hard questions):
- quick: the answer at once, `#### 12`. Most of these are wrong: only the first two numbers were read.
- worked: one line for each step, then `#### 12`. A few contain a slip in one step.
- said: the same, but ending in `The answer is 12.`, which no grader reads.
- unfinished: the steps, but no final line.
Three cheaper kinds come first, because on one thread the long question alone would take hours to learn from: drills are
single steps, as on flash cards; exercises are worked solutions after a terse question; excerpts are worked solutions
after a question whose beginning is cut off at a random place.

So the most likely answer to a hard question is a quick one and mostly wrong, while the ability to work it out is
there: what reinforcement learning has to find is the habit.

Contamination: no question, that is no whole expression, of `held_out` occurs in the corpus. The single steps that their
solutions consist of do occur, in other questions and in drills: there are only about 900 of them, and they are the
arithmetic that the model is meant to know.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from grpo_gsm8k.tiny.sums import Sum, apply, draw, held_out

STYLES = {
    "easy": {"quick": 0.30, "worked": 0.44, "said": 0.16, "unfinished": 0.10},
    "hard": {"quick": 0.57, "worked": 0.21, "said": 0.14, "unfinished": 0.08},
}
QUICK_ERROR_SHARE = 0.85
WORKED_SLIP_SHARE = 0.05
TOTALS = range(-18, 28)  # what a chain of up to three terms can come to


@dataclass(frozen=True, slots=True)
class TextSpan:
    """A piece of text; the loss is taken on it only if it is `learned`."""

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
        endings = {"worked": [f"#### {total}"], "said": [f"The answer is {total}."], "unfinished": []}
        return "\n".join(lines + endings[style])

    def _drill(self) -> Document:
        left, sign, right = self._rng.choice(TOTALS), self._rng.choice("+-"), self._rng.randrange(10)
        return TextSpan(f"{left}{sign}{right}=", learned=False), TextSpan(f"{apply(left, sign, right)}\n", learned=True)


def _solved(problem: Sum, question: str) -> Document:
    lines, total = steps(problem)
    return TextSpan(question, learned=False), TextSpan(" " + "\n".join([*lines, f"#### {total}"]), learned=True)


def steps(problem: Sum, slip_at: int = -1, slip: int = 0) -> tuple[list[str], int]:
    """One line for each operation, and the last result; step `slip_at` is off by `slip`, and the rest follows."""
    total, lines = problem.terms[0], []
    for index, (sign, term) in enumerate(zip(problem.signs, problem.terms[1:], strict=True)):
        result = apply(total, sign, term) + (slip if index == slip_at else 0)
        lines.append(f"{total}{sign}{term}={result}")
        total = result
    return lines, total


def is_easy(problem: Sum) -> bool:
    """What the corpus likes to work out: three numbers and at most one subtraction."""
    return len(problem.terms) == 3 and problem.signs.count("-") < 2


def quick_error(problem: Sum) -> int:
    """What somebody in a hurry gets: only the first two numbers were read."""
    return Sum(problem.terms[:2], problem.signs[:1]).answer


def corpus_hash(documents: list[Document]) -> str:
    """sha256 over all documents in order."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update("".join(f"{span.text}\x1f{span.learned}\x1e" for span in document).encode() + b"\x1d")
    return digest.hexdigest()
