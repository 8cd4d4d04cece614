"""Comparison of our verdicts on GSM8K completions with existing labels.

    python -m benchmarks.grading SOLUTIONS --problems test.jsonl

SOLUTIONS is JSONL with `question`, `solution` and `is_correct` per line, or `example_model_solutions.jsonl` of OpenAI's
grade-school-math repository: four models' solutions per line, which end in "A: 42" instead of GSM8K's "#### 42". The
exit code is 1 if a verdict on a well-formed answer differs from its label.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_gsm8k.data.problems import read_problems
from grpo_gsm8k.grading.answers import AnswerFormat, Locale, grade

if TYPE_CHECKING:
    from collections.abc import Iterator

LAST_LINE = "A: "


@dataclass(frozen=True, slots=True)
class Labeled:
    """One completion and its label."""

    question: str
    solution: str
    is_correct: bool


def main() -> int:
    """Grade all completions, and print a table and every disagreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("solutions", type=Path)
    parser.add_argument("--problems", type=Path, required=True, help="GSM8K-like JSONL with the gold answers")
    options = parser.parse_args()
    gold = {problem.question: problem.gold for problem in read_problems(options.problems, "test")}
    counts: Counter[tuple[bool, bool, bool]] = Counter()
    for item in labeled(options.solutions):
        number = gold[item.question]
        found = grade(with_marker(item.solution), number, AnswerFormat.HASH, Locale.EN)
        counts[found.well_formed, found.correct, item.is_correct] += 1
        if found.well_formed and found.correct != item.is_correct:
            print(f"ours {found.correct}, theirs {item.is_correct}, gold {number}: {item.solution[-60:]!r}")
    print(f"{'well-formed':>12}{'ours':>8}{'theirs':>8}{'completions':>13}")
    for (well_formed, ours, theirs), count in sorted(counts.items(), reverse=True):
        print(f"{well_formed!s:>12}{ours!s:>8}{theirs!s:>8}{count:>13,}")
    return int(any(well_formed and ours != theirs for well_formed, ours, theirs in counts))


def labeled(path: Path) -> Iterator[Labeled]:
    """Yield all completions of a file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for item in [row] if "solution" in row else [value for value in row.values() if isinstance(value, dict)]:
            yield Labeled(row["question"], item["solution"], item["is_correct"])


def with_marker(solution: str) -> str:
    """Replace "A: " at the beginning of the last line with GSM8K's marker."""
    before, _, last = solution.rpartition("\n")
    return f"{before}\n#### {last.removeprefix(LAST_LINE)}" if last.startswith(LAST_LINE) else solution


if __name__ == "__main__":
    raise SystemExit(main())
