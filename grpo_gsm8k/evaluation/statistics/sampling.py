"""Metrics of several samples per problem: accuracy, pass@k, majority vote, agreement."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """One graded completion. `answer` is its canonical answer, None if missing or truncated."""

    item_id: str
    temperature: float
    answer: str | None
    correct: bool


def mean_at_n(samples: Sequence[SampledAnswer]) -> float:
    """Mean over items of the share of right samples; all items weigh the same. Raises ValueError on no samples."""
    return mean(sum(s.correct for s in group) / len(group) for group in _by_item(samples).values())


def accuracy_by_temperature(samples: Sequence[SampledAnswer]) -> dict[float, float]:
    """Return `mean_at_n` per temperature, in ascending order. Raises ValueError on no samples."""
    groups = _grouped((s.temperature, s) for s in samples)
    return {temperature: mean_at_n(groups[temperature]) for temperature in sorted(groups)}


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased probability that k of n samples, drawn without replacement, include one of the `correct` right ones.

    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv:2107.03374), in integers with a single division, so that nothing
    overflows or cancels and pass@1 equals the accuracy exactly. Raises ValueError unless 1 <= k <= n and
    0 <= correct <= n.
    """
    if not (1 <= k <= n and 0 <= correct <= n):
        raise ValueError(f"pass@{k} of {correct} right samples among {n}: k must be 1..n, and the right ones 0..n")
    draws = math.comb(n, k)
    return (draws - math.comb(n - correct, k)) / draws


def item_pass_at_k(samples: Sequence[SampledAnswer], k: int) -> dict[str, float]:
    """Return `pass_at_k` by item. Raises ValueError on no samples, or an item with fewer than k."""
    groups = _by_item(samples)
    return {item_id: pass_at_k(len(group), sum(s.correct for s in group), k) for item_id, group in groups.items()}


def mean_pass_at_k(samples: Sequence[SampledAnswer], k: int) -> float:
    """Mean over items of `pass_at_k`. Raises ValueError like `item_pass_at_k`."""
    return mean(item_pass_at_k(samples, k).values())


def majority_answer(answers: Sequence[str | None], seed: int | str) -> str | None:
    """Return the most frequent answer (Wang et al. 2022, arXiv:2203.11171); None if no sample has one.

    A missing answer has no vote. Ties are broken by the seed, independent of the order of the answers.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return None
    most = max(votes.values())
    return random.Random(seed).choice(sorted(answer for answer, count in votes.items() if count == most))


def right_by_majority(samples: Sequence[SampledAnswer], k: int, seed: int) -> dict[str, bool]:
    """Return by item whether the majority answer among its first k samples, in the given order, is right.

    An item without any answer is wrong. Ties of an item are broken independently of other items. Raises ValueError if
    an item has fewer than k samples, k < 1, there are no samples, or samples with the same answer are graded
    differently (a truncated sample is wrong, so its answer must be None).
    """
    right: dict[str, bool] = {}
    for item_id, group in _by_item(samples).items():
        if not 1 <= k <= len(group):
            raise ValueError(f"majority@{k}: item {item_id!r} has {len(group)} samples")
        winner = majority_answer([s.answer for s in group[:k]], f"{seed}:{item_id}")
        verdicts = {s.correct for s in group[:k] if winner is not None and s.answer == winner}
        if len(verdicts) > 1:
            raise ValueError(f"item {item_id!r}: the answer {winner!r} is graded both right and wrong")
        right[item_id] = verdicts == {True}
    return right


def majority_at_k(samples: Sequence[SampledAnswer], k: int, seed: int) -> float:
    """Share of items that are `right_by_majority`, with the same errors."""
    return mean(right_by_majority(samples, k, seed).values())


def right_at_any_temperature(samples: Sequence[SampledAnswer]) -> dict[str, bool]:
    """Return by item whether any of its samples is right. Raises ValueError on no samples."""
    return {item_id: any(s.correct for s in group) for item_id, group in _by_item(samples).items()}


def agreement(samples: Sequence[SampledAnswer]) -> float:
    """Mean over items of the share of samples with the majority answer; 0 for an item without answers.

    Tied answers have the same share, so no seed is needed. Raises ValueError on no samples.
    """
    shares = []
    for group in _by_item(samples).values():
        votes = Counter(s.answer for s in group if s.answer is not None)
        shares.append(max(votes.values(), default=0) / len(group))
    return mean(shares)


def _by_item(samples: Sequence[SampledAnswer]) -> Mapping[str, list[SampledAnswer]]:
    return _grouped((s.item_id, s) for s in samples)


def _grouped(pairs: Iterable[tuple[Key, SampledAnswer]]) -> dict[Key, list[SampledAnswer]]:
    groups: defaultdict[Key, list[SampledAnswer]] = defaultdict(list)
    for key, sample in pairs:
        groups[key].append(sample)
    if not groups:
        raise ValueError("no samples")
    return groups


def mean(values: Iterable[float]) -> float:
    """Return the mean, with a sum that is rounded once."""
    listed = list(values)
    return math.fsum(listed) / len(listed)
