"""Two models on the same items: a paired bootstrap, McNemar's exact test, and Holm's correction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import binomtest

from grpo_gsm8k.evaluation.report.records import AnswerSet, Pair

RESAMPLES = 10_000
LEVEL = 0.95


def compare(before: AnswerSet, after: AnswerSet, family: str) -> Pair | None:
    """Compare on the items of both; None where they have none in common."""
    keys = [key for key in before.share_right if key in after.share_right]
    if not keys:
        return None
    differences = [after.share_right[key] - before.share_right[key] for key in keys]
    low, high = paired_interval(differences)
    fixed = tuple(k for k in keys if _right(after, k) and not _right(before, k))
    broken = tuple(k for k in keys if _right(before, k) and not _right(after, k))
    single = before.samples == after.samples == 1
    mean = sum(differences) / len(keys)
    p = mcnemar(len(fixed), len(broken)) if single else None
    return Pair(before, after, family, len(keys), fixed, broken, mean, low, high, p)


def paired_interval(differences: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean difference, items resampled whole.

    A resample of n items is a draw of how often each distinct difference occurs, which is multinomial: the same
    bootstrap without n draws per resample. Where all differences are equal every resample agrees, and the bootstrap
    would claim certainty: there the interval allows for what n items may have missed, as in `accuracy_interval`.
    """
    n = len(differences)
    counts = Counter(differences)
    values = np.array(sorted(counts))
    if len(values) == 1:
        slack = 1 - ((1 - LEVEL) / 2) ** (1 / n)
        return max(-1.0, float(values[0]) - slack), min(1.0, float(values[0]) + slack)
    shares = np.array([counts[value] for value in values]) / n
    draws = np.random.default_rng(seed).multinomial(n, shares, size=RESAMPLES)
    low, high = np.quantile(draws @ values / n, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def mcnemar(fixed: int, broken: int) -> float:
    """Exact two-sided p of McNemar's test (1947): fixed and broken items were a fair coin's throws."""
    if fixed + broken == 0:
        return 1.0
    return float(binomtest(fixed, fixed + broken, 0.5).pvalue)


def correct_for_many(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The pairs with Holm's (1979) corrected p, each family by itself."""
    corrected = {
        id(pair): p
        for family in {pair.family for pair in pairs}
        for pair, p in _holm([pair for pair in pairs if pair.family == family and pair.p is not None])
    }
    return tuple(replace(pair, p_holm=corrected.get(id(pair))) for pair in pairs)


def _holm(pairs: list[Pair]) -> list[tuple[Pair, float]]:
    ranked = sorted(pairs, key=lambda pair: pair.p or 0.0)
    worst = 0.0
    out = []
    for rank, pair in enumerate(ranked):
        worst = max(worst, min(1.0, (pair.p or 0.0) * (len(ranked) - rank)))
        out.append((pair, worst))
    return out


def _right(answers: AnswerSet, key: tuple[str, str]) -> bool:
    return answers.answers[key].kind == "correct"
