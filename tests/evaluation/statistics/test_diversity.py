"""Diversity: worked examples."""

from __future__ import annotations

import math

import pytest

from grpo_gsm8k.evaluation.statistics.diversity import (
    answer_entropy,
    distinct_n,
    mean_trigram_jaccard,
    ngrams,
    repetition,
)


def test_distinct_n_counts_over_all_texts() -> None:
    # Words a b a, a c: distinct a b c of 5; pairs ab ba ac, all distinct.
    assert distinct_n(["a b a", "a c"], 1) == pytest.approx(3 / 5)
    assert distinct_n(["a b a", "a  c\n"], 2) == 1.0
    assert distinct_n([[1, 2, 1], [1, 2]], 2) == pytest.approx(2 / 3)
    assert distinct_n(["a", ""], 2) is None
    with pytest.raises(ValueError, match="n=0"):
        distinct_n(["a"], 0)


def test_trigram_jaccard() -> None:
    # abc bcd | bcd cde: one of three shared.
    assert mean_trigram_jaccard(["a b c d", "b c d e"]) == pytest.approx(1 / 3)
    # The pairs of three texts: 1/3, and nothing shared with x y z twice.
    assert mean_trigram_jaccard(["a b c d", "b c d e", "x y z"]) == pytest.approx(1 / 9)
    assert mean_trigram_jaccard([[1, 2, 3], [1, 2, 3]]) == 1.0
    assert mean_trigram_jaccard(["a b c"]) is None


def test_short_texts_are_compared_as_a_whole() -> None:
    assert mean_trigram_jaccard(["18", "18"]) == 1.0
    assert mean_trigram_jaccard(["18", "17"]) == 0.0
    assert mean_trigram_jaccard(["", ""]) == 1.0


def test_entropy_in_nats() -> None:
    assert answer_entropy(["1", "1", "1"]) == 0.0
    assert answer_entropy(["1", "2", "3", None]) == pytest.approx(math.log(4))
    # Shares 3/4 and 1/4: 0.75 ln(4/3) + 0.25 ln 4 = 0.5623.
    assert answer_entropy(["1", "1", "2", "1"]) == pytest.approx(0.5623, abs=1e-4)
    assert answer_entropy([None, None]) == 0.0
    with pytest.raises(ValueError, match="no answers"):
        answer_entropy([])


def test_repetition() -> None:
    # Six words, three 4-grams; "a b a b" comes twice.
    assert repetition("a b a b a b") == pytest.approx(1 / 3)
    assert repetition("a a a a", 1) == 0.75
    assert repetition([1, 2, 3, 4]) == 0.0
    assert repetition("a b") == 0.0


def test_ngrams() -> None:
    assert ngrams("a b c", 2) == [("a", "b"), ("b", "c")]
    assert ngrams("a", 2) == []
