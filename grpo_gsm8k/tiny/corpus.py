"""The pretraining corpus: a model of a web corpus, in which skill and bad habits stand side by side.

A question-and-answer document has one of four styles (weights in `STYLES`, by the number of terms):
- quick: the answer at once, `#### 12`. Most of these are wrong by a typical human error: the last term is forgotten.
- worked: one line for each step, then `#### 12`. A few contain a slip in one step.
- said: `The answer is 12.`, which no grader reads.
- unfinished: the steps, but no final line.
Two cheaper kinds come first, because on one thread the long question alone would take hours to learn from: drills are
single steps, as on flash cards, and exercises are worked solutions after a terse question.

So the most likely answer to a longer question is a quick one and mostly wrong, while the ability to work it out is
there: what reinforcement learning has to find is the habit.

Contamination: no question, that is no whole expression, of `held_out` occurs in the corpus. The single steps that their
solutions consist of do occur, in other questions and in drills: there are only about 900 of them, and they are the
arithmetic that the model is meant to know.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

from grpo_gsm8k.tiny.problems import Problem, apply, draw, held_out

STYLES = {
    3: {"quick": 0.30, "worked": 0.37, "said": 0.21, "unfinished": 0.12},
    4: {"quick": 0.50, "worked": 0.18, "said": 0.22, "unfinished": 0.10},
}
QUICK_ERROR_SHARE = 0.65
WORKED_SLIP_SHARE = 0.05
TOTALS = range(-18, 28)  # what a chain of up to three terms can come to


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text; the loss is taken on it only if it is `learned`."""

    text: str
    learned: bool


Document = tuple[Span, ...]


class Corpus:
    """A seeded stream of documents."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._held_out = held_out()

    def drills(self, count: int) -> list[Document]:
        return [self._drill() for _ in range(count)]

    def exercises(self, count: int) -> list[Document]:
        return [self._exercise() for _ in range(count)]

    def answers(self, count: int) -> list[Document]:
        return [self._answer() for _ in range(count)]

    def _answer(self) -> Document:
        problem = self._problem()
        weights = STYLES[len(problem.terms)]
        style = self._rng.choices(list(weights), list(weights.values()))[0]
        return Span(problem.prompt, learned=False), Span(" " + self._styled(problem, style), learned=True)

    def _exercise(self) -> Document:
        problem = self._problem()
        lines, total = steps(problem)
        solution = "\n".join([*lines, f"#### {total}"])
        return Span(f"{problem.expression} =\nAnswer:", learned=False), Span(" " + solution, learned=True)

    def _problem(self) -> Problem:
        while True:
            problem = draw(self._rng, self._rng.choice(list(STYLES)))
            if problem.expression not in self._held_out:
                return problem

    def _styled(self, problem: Problem, style: str) -> str:
        if style == "said":
            return f"The answer is {problem.answer}."
        if style == "quick":
            wrong = self._rng.random() < QUICK_ERROR_SHARE
            return f"#### {quick_error(problem) if wrong else problem.answer}"
        slip_at = self._rng.randrange(len(problem.signs)) if self._rng.random() < WORKED_SLIP_SHARE else -1
        lines, total = steps(problem, slip_at, self._rng.choice((-2, -1, 1, 2)))
        return "\n".join(lines + ([f"#### {total}"] if style == "worked" else []))

    def _drill(self) -> Document:
        left, sign, right = self._rng.choice(TOTALS), self._rng.choice("+-"), self._rng.randrange(10)
        return Span(f"{left}{sign}{right}=", learned=False), Span(f"{apply(left, sign, right)}\n", learned=True)


def steps(problem: Problem, slip_at: int = -1, slip: int = 0) -> tuple[list[str], int]:
    """One line for each operation, and the last result; step `slip_at` is off by `slip`, and the rest follows."""
    total, lines = problem.terms[0], []
    for index, (sign, term) in enumerate(zip(problem.signs, problem.terms[1:], strict=True)):
        result = apply(total, sign, term) + (slip if index == slip_at else 0)
        lines.append(f"{total}{sign}{term}={result}")
        total = result
    return lines, total


def quick_error(problem: Problem) -> int:
    """What somebody in a hurry gets: the last term is forgotten."""
    return Problem(problem.terms[:-1], problem.signs[:-1]).answer


def corpus_hash(documents: list[Document]) -> str:
    """sha256 over all documents in order."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update("".join(f"{span.text}\x1f{span.learned}\x1e" for span in document).encode() + b"\x1d")
    return digest.hexdigest()
