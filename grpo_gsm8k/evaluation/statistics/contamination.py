"""Contamination: test questions in the training text, as verbatim word runs or near-duplicates of whole texts.

Words are lower-case runs of letters and digits; everything else separates them. Compare questions with questions: a
training text that also contains a long answer has a low Jaccard similarity to its own question.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from datasketch import MinHash, MinHashLSH

from grpo_gsm8k.evaluation.statistics.diversity import Gram, ngrams

GRAM_WORDS = 13
MIN_WORDS = 8  # shorter runs are common phrases
SHINGLE_WORDS = 5
PERMUTATIONS = 128
MISSED = 1e-6  # probability of missing a pair at the threshold

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Overlap:
    """Indices of a test and a training text, and their similarity in 0..1."""

    test: int
    train: int
    score: float


def words(text: str) -> list[str]:
    """Return the lower-case alphanumeric words of a text: it, s, 1, 000, km for "It's 1,000 km"."""
    return _WORD.findall(text.lower())


def ngram_overlaps(tests: Sequence[str], trains: Sequence[str], n: int = GRAM_WORDS) -> tuple[Overlap, ...]:
    """Return sorted pairs that share a run of n words; the score is the share of the test's distinct runs found.

    n is 13 as in Brown et al. (2020, arXiv:2005.14165, appendix C). A test of 8 to 12 words is a single run; shorter
    ones are skipped, because a match would mean little. Raises ValueError if n < 8.
    """
    if n < MIN_WORDS:
        raise ValueError(f"n={n}: runs of fewer than {MIN_WORDS} words are common phrases")
    owners: defaultdict[Gram, list[int]] = defaultdict(list)
    total: dict[int, int] = {}
    for test, text in enumerate(tests):
        parts = words(text)
        grams = set(ngrams(parts, min(n, len(parts)))) if len(parts) >= MIN_WORDS else set()
        total[test] = len(grams)
        for gram in grams:
            owners[gram].append(test)
    sizes = {len(gram) for gram in owners}
    shared: Counter[tuple[int, int]] = Counter()
    for train, text in enumerate(trains):
        parts = words(text)
        for gram in {gram for size in sizes for gram in ngrams(parts, size)} & owners.keys():
            shared.update((test, train) for test in owners[gram])
    return tuple(Overlap(test, train, count / total[test]) for (test, train), count in sorted(shared.items()))


def near_duplicates(
    tests: Sequence[str], trains: Sequence[str], seed: int, threshold: float = 0.8
) -> tuple[Overlap, ...]:
    """Return pairs whose sets of 5-word shingles have a Jaccard similarity (the score) of at least the threshold.

    MinHash (Broder 1997) with locality-sensitive hashing (Leskovec et al., Mining of Massive Datasets, chapter 3)
    proposes pairs and the exact similarity decides, so there are no false positives; a pair at the threshold is missed
    with probability 1e-6 at most. A text of fewer than 5 words is one shingle, one without words matches nothing.
    Raises ValueError unless the threshold is in 0.1..1; below, hashing would propose every pair.
    """
    if not 0.1 <= threshold <= 1:
        raise ValueError(f"threshold={threshold} must lie in 0.1..1")
    bands, rows = _bands(threshold)
    index = MinHashLSH(num_perm=PERMUTATIONS, params=(bands, rows))
    train_sets = [_shingles(text) for text in trains]
    blank = MinHash(num_perm=PERMUTATIONS, seed=seed)
    for train, shingles in enumerate(train_sets):
        if shingles:
            index.insert(train, _signature(blank, shingles))
    pairs = []
    for test, text in enumerate(tests):
        shingles = _shingles(text)
        for train in sorted(index.query(_signature(blank, shingles))) if shingles else []:
            score = jaccard(shingles, train_sets[train])
            if score >= threshold:
                pairs.append(Overlap(test, train, score))
    return tuple(pairs)


def jaccard(a: set[str], b: set[str]) -> float:
    """Size of the intersection over size of the union. Raises ZeroDivisionError if both sets are empty."""
    return len(a & b) / len(a | b)


def _shingles(text: str) -> set[str]:
    parts = words(text)
    if not parts:
        return set()
    return {" ".join(map(str, gram)) for gram in ngrams(parts, min(SHINGLE_WORDS, len(parts)))}


def _signature(blank: MinHash, shingles: set[str]) -> MinHash:
    filled = blank.copy()  # drawing new permutations for every text would take most of the time
    filled.update_batch([shingle.encode() for shingle in shingles])
    return filled


def _bands(threshold: float) -> tuple[int, int]:
    """Return number and size of bands: the most rows, so the fewest false proposals, that keep misses below MISSED.

    A pair of similarity s shares some band with probability 1 - (1 - s^rows)^bands. The library's default weighs misses
    and false proposals equally, and at 0.8 misses more than half of the pairs at the threshold.
    """
    for rows in range(PERMUTATIONS // 2, 1, -1):
        bands = PERMUTATIONS // rows
        if (1 - threshold**rows) ** bands <= MISSED:
            return bands, rows
    return PERMUTATIONS, 1
