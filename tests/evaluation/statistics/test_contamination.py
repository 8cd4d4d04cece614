"""Contamination: planted matches are found, near misses are not."""

from __future__ import annotations

import random

import pytest

from grpo_gsm8k.evaluation.statistics.contamination import (
    Overlap,
    _bands,
    _shingles,
    jaccard,
    near_duplicates,
    ngram_overlaps,
    words,
)

RNG = random.Random(0)
VOCABULARY = [f"word{i}" for i in range(500)]


def prose(length: int, rng: random.Random = RNG) -> list[str]:
    return rng.choices(VOCABULARY, k=length)


def test_words_are_lower_case_alphanumeric() -> None:
    assert words("It's 1,000 KM_away - çok!") == ["it", "s", "1", "000", "km", "away", "çok"]


def test_planted_runs_are_found_and_near_misses_are_not() -> None:
    question = prose(20)
    exact = [*prose(30), *question[2:15], *prose(30)]  # 13 consecutive words: one of 8 runs
    short = [*prose(30), *question[2:14], *prose(30)]  # 12 consecutive words
    broken = [*question[:10], "other", *question[11:20]]  # no 13 consecutive words
    dressed = [" ".join(question).upper().replace(" ", ", ")]
    trains = [" ".join(text) for text in (prose(60), exact, short, broken, dressed)]
    assert ngram_overlaps([" ".join(prose(20)), " ".join(question)], trains) == (
        Overlap(1, 1, 1 / 8),
        Overlap(1, 4, 1.0),
    )


def test_short_questions_are_one_run_and_tiny_ones_none() -> None:
    nine, seven = prose(9), prose(7)
    train = " ".join([*prose(5), *nine, *prose(5), *seven])
    assert ngram_overlaps([" ".join(nine), " ".join(seven), ""], [train]) == (Overlap(0, 0, 1.0),)
    assert ngram_overlaps([" ".join([*nine, "other"])], [train]) == ()
    with pytest.raises(ValueError, match="n=5"):
        ngram_overlaps(["a"], ["a"], n=5)


def test_planted_near_duplicates_are_found_and_near_misses_are_not() -> None:
    question = prose(60)  # 56 shingles; a changed word in the middle takes 5 of them
    one_changed = [*question[:30], "other", *question[31:]]  # 51 / 61 = 0.836
    two_changed = [*question[:20], "other", *question[21:40], "more", *question[41:]]  # 46 / 66 = 0.697
    trains = [" ".join(text) for text in (prose(60), question, one_changed, two_changed)]
    found = near_duplicates([" ".join(prose(60)), " ".join(question).title()], trains, seed=0)
    assert found == (Overlap(1, 1, 1.0), Overlap(1, 2, 51 / 61))


def test_near_duplicates_are_the_exact_ones_at_any_seed() -> None:
    rng = random.Random(3)
    tests = [prose(40, rng) for _ in range(30)]
    trains = []
    for text in tests:
        for _ in range(3):  # up to 3 changed words: similarities from 0.4 to 1
            copy = list(text)
            for position in rng.sample(range(40), rng.randrange(4)):
                copy[position] = rng.choice(VOCABULARY)
            trains.append(copy)
    a, b = [" ".join(t) for t in tests], [" ".join(t) for t in trains]
    scores = [(i, j, jaccard(_shingles(x), _shingles(y))) for i, x in enumerate(a) for j, y in enumerate(b)]
    expected = tuple(Overlap(i, j, score) for i, j, score in scores if score >= 0.8)
    assert 10 < len(expected) < 90
    assert near_duplicates(a, b, seed=0) == near_duplicates(a, b, seed=1) == expected


def test_short_and_empty_texts() -> None:
    assert near_duplicates(["Two plus two?", "", "..."], ["two plus two", "", "two plus"], seed=0) == (
        Overlap(0, 0, 1.0),
    )
    assert near_duplicates([], [], seed=0) == ()


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9, 1.0])
def test_pairs_at_the_threshold_are_seldom_missed(threshold: float) -> None:
    bands, size = _bands(threshold)
    assert bands * size <= 128
    assert (1 - threshold**size) ** bands <= 1e-6


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_senseless_threshold(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold="):
        near_duplicates(["a"], ["a"], seed=0, threshold=threshold)
