"""The pretraining corpus: a model of a web corpus, in which skill and bad habits stand side by side.

A question-and-answer document has one of four styles (weights in `STYLES`):
- quick: the answer at once, `#### 12`. Most of these contain a typical human error: the last of three terms is
  forgotten, or carrying and borrowing is.
- worked: one line for each step, then `#### 12`. A few contain a slip in one step.
- said: `The answer is 12.`, which no grader reads.
- unfinished: the steps, but no final line.
Drill documents are lines of single steps, as on an exercise sheet; they teach the arithmetic cheaply.

So the most likely answer is a quick one and often wrong, while the ability to work it out is there: what
reinforcement learning has to find is the habit.

Contamination: no expression of `held_out` occurs, neither as a question nor as a step nor in a drill. The one exception
is sums of two single digits, of which only 200 exist: the demo asks all of them, and here they occur as steps and
drills, never as a question. Numbers of unequal length, which the demo never asks, stand in for them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from grpo_gsm8k.tiny.problems import Problem, apply, draw, held_out

STYLES = {"quick": 0.48, "worked": 0.18, "said": 0.22, "unfinished": 0.12}
DIGITS = {(1,): 0.2, (2,): 0.55, (1, 2): 0.25}
QUICK_ERROR_SHARE = 0.65
WORKED_SLIP_SHARE = 0.08
DRILL_CHARACTERS = 112


@dataclass(frozen=True, slots=True)
class Document:
    """The loss is taken on `text` alone; `prompt` is empty for a drill."""

    prompt: str
    text: str


class Corpus:
    """A seeded stream of documents."""

    def __init__(self, seed: int, drill_share: float) -> None:
        self._rng = random.Random(seed)
        self._drill_share = drill_share
        self._held_out = held_out()

    def documents(self, count: int) -> list[Document]:
        return [self._drill() if self._rng.random() < self._drill_share else self._answer() for _ in range(count)]

    def _answer(self) -> Document:
        problem = self._problem(question=True)
        style = self._rng.choices(list(STYLES), list(STYLES.values()))[0]
        return Document(problem.prompt, " " + self._styled(problem, style))

    def _styled(self, problem: Problem, style: str) -> str:
        if style == "said":
            return f"The answer is {problem.answer}."
        if style == "quick":
            wrong = self._rng.random() < QUICK_ERROR_SHARE
            return f"#### {quick_error(problem) if wrong else problem.answer}"
        slip_at = self._rng.randrange(len(problem.signs)) if self._rng.random() < WORKED_SLIP_SHARE else -1
        lines, total = steps(problem, slip_at, self._rng.choice((-10, -1, 1, 10)))
        return "\n".join(lines + ([f"#### {total}"] if style == "worked" else []))

    def _drill(self) -> Document:
        lines: list[str] = []
        while sum(len(line) + 1 for line in lines) < DRILL_CHARACTERS:
            lines += steps(self._problem(question=False))[0]
        return Document("", "\n".join(lines)[:DRILL_CHARACTERS].rpartition("\n")[0])

    def _problem(self, question: bool) -> Problem:
        """Draws until nothing of the problem is held out."""
        while True:
            digits = self._rng.choices(list(DIGITS), list(DIGITS.values()))[0]
            problem = draw(self._rng, self._rng.choice((2, 3)), digits)
            asked = problem.expression in self._held_out if question else False
            if not asked and not any(expression in self._held_out for expression in _hard_steps(problem)):
                return problem


def _hard_steps(problem: Problem) -> Iterator[str]:
    """The steps of a problem as expressions, without those of two single digits."""
    total = problem.terms[0]
    for sign, term in zip(problem.signs, problem.terms[1:], strict=True):
        if not (0 <= total <= 9 and term <= 9):
            yield f"{total} {sign} {term}"
        total = apply(total, sign, term)


def steps(problem: Problem, slip_at: int = -1, slip: int = 0) -> tuple[list[str], int]:
    """One line for each operation, and the last result. Step `slip_at` is off by `slip`, and the rest follows from it."""
    total, lines = problem.terms[0], []
    for index, (sign, term) in enumerate(zip(problem.signs, problem.terms[1:], strict=True)):
        result = apply(total, sign, term) + (slip if index == slip_at else 0)
        lines.append(f"{total}{sign}{term}={result}")
        total = result
    return lines, total


def quick_error(problem: Problem) -> int:
    """What somebody in a hurry gets: three terms lose the last one, two are added column by column without a carry."""
    if len(problem.terms) > 2:
        return Problem(problem.terms[:2], problem.signs[:1]).answer
    (left, right), sign = problem.terms, problem.signs[0]
    if max(left, right) < 10:
        return problem.answer
    if sign == "+":
        return (left // 10 + right // 10) * 10 + (left + right) % 10
    size = abs(left // 10 - right // 10) * 10 + abs(left % 10 - right % 10)
    return size if left >= right else -size


def corpus_hash(documents: list[Document]) -> str:
    """sha256 over all documents in order."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(f"{document.prompt}\x1f{document.text}\x1e".encode())
    return digest.hexdigest()
