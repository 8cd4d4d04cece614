"""Diversity of completions, which RL tends to reduce without an effect on accuracy.

A text is a string, split at whitespace, or a sequence of tokens.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations

Text = str | Sequence[Hashable]
Gram = tuple[Hashable, ...]


def distinct_n(texts: Sequence[Text], n: int) -> float | None:
    """Distinct n-grams over all n-grams of all texts (Li et al. 2016, arXiv:1510.03055); None without any n-gram.

    It decreases with the amount of text, so compare sets of equal size. Raises ValueError if n < 1.
    """
    grams = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else None


def mean_trigram_jaccard(texts: Sequence[Text]) -> float | None:
    """Mean of |A and B| / |A or B| over all pairs of one prompt's texts, A and B being their sets of trigrams.

    1 means identical sets (Jaccard 1901). A text of fewer than three tokens counts as one gram. None with fewer than
    two texts.
    """
    sets = [set(ngrams(text, 3)) or {tuple(tokens(text))} for text in texts]
    shares = [len(a & b) / len(a | b) for a, b in combinations(sets, 2)]
    return math.fsum(shares) / len(shares) if shares else None


def answer_entropy(answers: Sequence[str | None]) -> float:
    """Entropy (Shannon 1948) of one prompt's final answers in nats: -sum p ln p; 0 if all agree, at most ln(n).

    A missing answer counts as a distinct answer. Raises ValueError on an empty list.
    """
    if not answers:
        raise ValueError("no answers")
    shares = [count / len(answers) for count in Counter(answers).values()]
    return math.fsum(share * math.log(1 / share) for share in shares)


def repetition(text: Text, n: int = 4) -> float:
    """Share of a text's n-grams that are repetitions: 1 - distinct / all.

    seq-rep-n of Welleck et al. (2020, arXiv:1908.04319). 0 for a text without n-grams. Raises ValueError if n < 1.
    """
    grams = ngrams(text, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def tokens(text: Text) -> Sequence[Hashable]:
    """Return the words of a string, or the given tokens."""
    return text.split() if isinstance(text, str) else text


def ngrams(text: Text, n: int) -> list[Gram]:
    """Return all runs of n tokens in order, none for a shorter text. Raises ValueError if n < 1."""
    if n < 1:
        raise ValueError(f"n={n} must be at least 1")
    parts = tokens(text)
    return [tuple(parts[i : i + n]) for i in range(len(parts) - n + 1)]
