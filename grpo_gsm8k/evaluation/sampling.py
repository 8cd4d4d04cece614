"""Metrics of several samples per problem: accuracy, pass@k, majority vote, agreement, and strict string matching."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from grpo_gsm8k.answers import AnswerFormat, Locale, extract

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Sample:
    """One graded completion. `answer` is its canonical answer, None when it has none or was cut off."""

    item_id: str
    temperature: float
    answer: str | None
    correct: bool


@dataclass(frozen=True, slots=True)
class ExactMatch:
    """Shares of texts whose extracted string equals the gold answer: as it is, and without punctuation."""

    strict: float
    relaxed: float


def mean_at_n(samples: Sequence[Sample]) -> float:
    """Mean over items of the share of right samples, so that every item weighs the same. ValueError when empty."""
    return _mean(sum(s.correct for s in group) / len(group) for group in _by_item(samples).values())


def accuracy_by_temperature(samples: Sequence[Sample]) -> dict[float, float]:
    """`mean_at_n` of each temperature's samples, temperatures ascending. Raises ValueError on no samples."""
    groups = _grouped((s.temperature, s) for s in samples)
    return {temperature: mean_at_n(groups[temperature]) for temperature in sorted(groups)}


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased chance that k of n samples, drawn without replacement, hold a right one, given the number of right ones.

    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv:2107.03374), as the product of 1 - k / i for i from n - c + 1 to
    n, which neither overflows nor cancels. Raises ValueError when k > n, k < 1 or not 0 <= correct <= n.
    """
    if not (1 <= k <= n and 0 <= correct <= n):
        raise ValueError(f"pass@{k} of {correct} right samples among {n}: k must be 1..n, and right ones 0..n")
    if n - correct < k:
        return 1.0
    missed = 1.0
    for i in range(n - correct + 1, n + 1):
        missed *= 1 - k / i
    return 1 - missed


def mean_pass_at_k(samples: Sequence[Sample], k: int) -> float:
    """Mean over items of `pass_at_k`. Raises ValueError when an item has fewer than k samples, or there is none."""
    groups = _by_item(samples).values()
    return _mean(pass_at_k(len(group), sum(s.correct for s in group), k) for group in groups)


def majority_answer(answers: Sequence[str | None], seed: int | str) -> str | None:
    """The most frequent answer (Wang et al. 2022, arXiv:2203.11171); None only when no sample has one.

    A missing answer has no vote. Ties are drawn with the seed, whatever the order of the answers.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return None
    most = max(votes.values())
    return random.Random(seed).choice(sorted(answer for answer, count in votes.items() if count == most))


def majority_at_k(samples: Sequence[Sample], k: int, seed: int) -> float:
    """Share of items whose majority answer among their first k samples, in the order given, is right.

    An item without any answer is wrong. Each item has its own tie-breaking draw, so other items do not change it.
    Raises ValueError when an item has fewer than k samples, k < 1, there is no sample, or the samples with one answer
    are graded differently (a truncated sample is wrong whatever it says: its answer must be None).
    """
    right = []
    for item_id, group in _by_item(samples).items():
        if not 1 <= k <= len(group):
            raise ValueError(f"majority@{k}: item {item_id!r} has {len(group)} samples")
        winner = majority_answer([s.answer for s in group[:k]], f"{seed}:{item_id}")
        verdicts = {s.correct for s in group[:k] if winner is not None and s.answer == winner}
        if len(verdicts) > 1:
            raise ValueError(f"item {item_id!r}: the answer {winner!r} is graded both right and wrong")
        right.append(verdicts == {True})
    return _mean(right)


def correct_at_any_temperature(samples: Sequence[Sample]) -> float:
    """Share of items with at least one right sample at any temperature. Raises ValueError on no samples."""
    return _mean(any(s.correct for s in group) for group in _by_item(samples).values())


def agreement(samples: Sequence[Sample]) -> float:
    """Mean over items of the share of all samples that give the majority answer; 0 for an item without answers.

    Ties need no seed: tied answers have the same share. Raises ValueError on no samples.
    """
    shares = []
    for group in _by_item(samples).values():
        votes = Counter(s.answer for s in group if s.answer is not None)
        shares.append(max(votes.values(), default=0) / len(group))
    return _mean(shares)


def exact_match(texts: Sequence[str], golds: Sequence[str], fmt: AnswerFormat, locale: Locale) -> ExactMatch:
    """Compare the raw string that `answers.extract` finds in each text with its gold answer, strictly and relaxed.

    Golds are in English notation and compared as the locale writes them ("1234.5" as "1234,5" in Turkish). A text
    without a marked answer matches nothing. Both are stricter than `answers.grade`, which compares numbers: "18.0" is
    not "18" here. Raises ValueError on different lengths or no texts.
    """
    if len(texts) != len(golds) or not texts:
        raise ValueError(f"{len(texts)} texts for {len(golds)} gold answers")
    strict = relaxed = 0
    for text, gold in zip(texts, golds, strict=True):
        found = extract(text, fmt, locale)
        if found is not None:
            expected = gold.translate(_SWAP_MARKS) if locale == Locale.TR else gold
            strict += found == expected
            relaxed += without_punctuation(found, locale) == without_punctuation(expected, locale)
    return ExactMatch(strict / len(texts), relaxed / len(texts))


_SWAP_MARKS = str.maketrans(".,", ",.")
_MINUSES = str.maketrans("\u2212\u2013", "--")
_DECIMAL_MARK = {Locale.EN: re.compile(r"(?<![0-9])-(?=[.0-9])|\.(?=[0-9])")}
_DECIMAL_MARK[Locale.TR] = re.compile(r"(?<![0-9])-(?=[,0-9])|,(?=[0-9])")


def without_punctuation(text: str, locale: Locale) -> str:
    """Drop punctuation, symbols, whitespace and case, but for the marks that change a number.

    A minus before a number and the locale's decimal mark before a digit stay: "-5" is not "5", nor is "1.5" "15".
    Turkish lower case maps "I" to "ı" and "İ" to "i".
    """
    text = text.translate(_MINUSES)
    kept = {match.start() for match in _DECIMAL_MARK[locale].finditer(text)}
    text = "".join(c for i, c in enumerate(text) if i in kept or unicodedata.category(c)[0] not in "PSZC")
    if locale == Locale.TR:
        text = text.replace("I", "ı").replace("İ", "i")
    return text.lower()


def _by_item(samples: Sequence[Sample]) -> Mapping[str, list[Sample]]:
    return _grouped((s.item_id, s) for s in samples)


def _grouped(pairs: Iterable[tuple[Key, Sample]]) -> dict[Key, list[Sample]]:
    groups: defaultdict[Key, list[Sample]] = defaultdict(list)
    for key, sample in pairs:
        groups[key].append(sample)
    if not groups:
        raise ValueError("no samples")
    return groups


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
