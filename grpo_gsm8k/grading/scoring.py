"""Summary metrics of graded completions, shared by training, validation and evaluation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from grpo_gsm8k.grading.answers import Grade


class ErrorKind(StrEnum):
    """Outcome of a completion; every completion has exactly one kind."""

    CORRECT = "correct"
    TRUNCATED = "truncated"
    FORMAT = "format"
    LOGIC = "logic"


@dataclass(frozen=True, slots=True)
class Graded:
    """One graded completion. `length` is its number of sampled tokens."""

    item_id: str
    kind: ErrorKind
    length: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Metrics of `n` completions. Accuracy and the three error fractions sum to 1."""

    n: int
    accuracy: float
    accuracy_ci_low: float
    accuracy_ci_high: float
    truncated_frac: float
    format_error_frac: float
    logic_error_frac: float
    length_mean: float

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return all metrics except `n`, with prefixed names such as `val/accuracy`."""
        return {
            f"{prefix}accuracy": self.accuracy,
            f"{prefix}accuracy_ci_low": self.accuracy_ci_low,
            f"{prefix}accuracy_ci_high": self.accuracy_ci_high,
            f"{prefix}truncated_frac": self.truncated_frac,
            f"{prefix}format_error_frac": self.format_error_frac,
            f"{prefix}logic_error_frac": self.logic_error_frac,
            f"{prefix}length_mean": self.length_mean,
        }


def classify(grade: Grade, truncated: bool) -> ErrorKind:
    """Return the kind of a completion; an empty one is a format error.

    Truncation comes first, even with the right number in the text: "#### 18" may be the beginning of "#### 180", the
    last number of an unfinished derivation is not an answer, and a policy that never stops has not solved the task.
    """
    if truncated:
        return ErrorKind.TRUNCATED
    if not grade.well_formed:
        return ErrorKind.FORMAT
    return ErrorKind.CORRECT if grade.correct else ErrorKind.LOGIC


def summarize(graded: Sequence[Graded], seed: int) -> Summary:
    """Summarize all completions; every denominator counts all of them. Raises ValueError on an empty list.

    The interval assumes independent completions: with several per item it is too narrow.
    """
    low, high = accuracy_interval([item.kind == ErrorKind.CORRECT for item in graded], seed)
    n = len(graded)
    counts = Counter(item.kind for item in graded)
    return Summary(
        n=n,
        accuracy=counts[ErrorKind.CORRECT] / n,
        accuracy_ci_low=low,
        accuracy_ci_high=high,
        truncated_frac=counts[ErrorKind.TRUNCATED] / n,
        format_error_frac=counts[ErrorKind.FORMAT] / n,
        logic_error_frac=counts[ErrorKind.LOGIC] / n,
        length_mean=math.fsum(item.length for item in graded) / n,
    )


def accuracy_interval(
    correct: Sequence[bool], seed: int, resamples: int = 10_000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the accuracy (Efron and Tibshirani 1993, chapter 13).

    A resample draws n outcomes with replacement, k of n being right, so its number of right outcomes is exactly
    Binomial(n, k/n). Drawing that number directly saves n draws per resample. If all outcomes agree, so do all
    resamples, and the bootstrap interval would have zero width; the interval is then Clopper and Pearson's (1934),
    which has a closed form in that case. Raises ValueError on an empty list or an invalid level.
    """
    n, k = len(correct), sum(map(bool, correct))
    if n == 0:
        raise ValueError("no outcomes: accuracy needs at least one graded completion")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level={level} must lie between 0 and 1, resamples={resamples} must be positive")
    tail = (1 - level) / 2
    if k == 0:
        return 0.0, float(1 - tail ** (1 / n))
    if k == n:
        return float(tail ** (1 / n)), 1.0
    means = np.random.default_rng(seed).binomial(n, k / n, size=resamples) / n
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)
