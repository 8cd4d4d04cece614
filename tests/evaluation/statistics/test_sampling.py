"""Several samples per problem: worked examples and definitions."""

from __future__ import annotations

from itertools import combinations

import pytest

from grpo_gsm8k.evaluation.statistics.sampling import (
    SampledAnswer,
    accuracy_by_temperature,
    agreement,
    majority_answer,
    majority_at_k,
    mean_at_n,
    mean_pass_at_k,
    pass_at_k,
    right_at_any_temperature,
)


def rows(item_id: str, answers: list[str | None], gold: str, temperature: float = 1.0) -> list[SampledAnswer]:
    return [SampledAnswer(item_id, temperature, answer, answer == gold) for answer in answers]


# a: 2 of 4 right, b: 1 of 4, c: none of 4 and no answer at all.
TABLE = rows("a", ["18", "18", "7", None], "18") + rows("b", ["5", "6", "6", "6"], "5") + rows("c", [None] * 4, "1")


def test_mean_at_n_weighs_items_alike() -> None:
    assert mean_at_n(TABLE) == pytest.approx((2 / 4 + 1 / 4 + 0) / 3)
    assert mean_at_n(rows("a", ["1"] * 9, "1") + rows("b", ["2"], "3")) == 0.5


def test_accuracy_by_temperature_is_ascending() -> None:
    hot = rows("a", ["1", "2"], "1", 1.0) + rows("b", ["4", "4"], "4", 1.0)
    cold = rows("a", ["2", "2"], "1", 0.2) + rows("b", ["4", "3"], "4", 0.2)
    assert list(accuracy_by_temperature(hot + cold).items()) == [(0.2, 0.25), (1.0, 0.75)]
    assert right_at_any_temperature(hot + cold) == {"a": True, "b": True}
    assert right_at_any_temperature(cold) == {"a": False, "b": True}


def test_pass_at_k_worked_example() -> None:
    # 5 samples, 2 right, draw 2: wrong pairs C(3, 2) = 3 of C(5, 2) = 10, so 1 - 0.3.
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7)
    assert pass_at_k(5, 2, 1) == pytest.approx(0.4)
    assert pass_at_k(5, 2, 4) == 1.0  # only three are wrong
    assert pass_at_k(5, 0, 5) == 0.0
    # a: 1 - C(2,2)/C(4,2) = 5/6; b: 1 - C(3,2)/6 = 1/2; c: 0.
    assert mean_pass_at_k(TABLE, 2) == pytest.approx((5 / 6 + 1 / 2 + 0) / 3)


@pytest.mark.parametrize("n", [1, 4, 7])
def test_pass_at_k_equals_the_enumeration(n: int) -> None:
    for correct in range(n + 1):
        outcomes = [True] * correct + [False] * (n - correct)
        for k in range(1, n + 1):
            subsets = [any(chosen) for chosen in combinations(outcomes, k)]
            assert pass_at_k(n, correct, k) == pytest.approx(sum(subsets) / len(subsets))


def test_pass_at_k_is_stable_for_many_samples() -> None:
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5)
    assert pass_at_k(100_000, 3, 1) == pytest.approx(3e-5)


@pytest.mark.parametrize(("n", "correct", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 2), (4, -1, 2)])
def test_pass_at_k_refuses(n: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(n, correct, k)


def test_missing_answers_have_no_vote() -> None:
    assert majority_answer([None, None, None, "3"], seed=0) == "3"
    assert majority_answer([None, None], seed=0) is None
    assert majority_answer([], seed=0) is None


def test_ties_are_drawn_by_seed_whatever_the_order() -> None:
    drawn = [majority_answer(["1", "2"], seed) for seed in range(200)]
    assert drawn == [majority_answer(["2", None, "1"], seed) for seed in range(200)]
    assert 60 < drawn.count("1") < 140


def test_majority_at_k() -> None:
    # a: 18 wins and is right; b: 6 wins and is wrong; c: no answer, wrong.
    assert majority_at_k(TABLE, 4, seed=0) == pytest.approx(1 / 3)
    assert majority_at_k(TABLE, 1, seed=0) == pytest.approx(2 / 3)  # the first samples: 18, 5, none
    tie = rows("x", ["1", "2"], "1")
    alone = [majority_at_k(tie, 2, seed) for seed in range(50)]
    assert set(alone) == {0.0, 1.0}
    assert alone == [majority_at_k(TABLE[:2] + tie, 2, seed) * 2 - 1 for seed in range(50)]  # item a is always right


def test_majority_refuses_too_few_samples_and_contradictions() -> None:
    with pytest.raises(ValueError, match="majority@5"):
        majority_at_k(TABLE, 5, seed=0)
    with pytest.raises(ValueError, match="majority@0"):
        majority_at_k(TABLE, 0, seed=0)
    with pytest.raises(ValueError, match="both right and wrong"):
        majority_at_k([SampledAnswer("a", 1.0, "18", True), SampledAnswer("a", 1.0, "18", False)], 2, seed=0)


def test_agreement_counts_missing_answers_against_it() -> None:
    assert agreement(TABLE) == pytest.approx((2 / 4 + 3 / 4 + 0) / 3)


def test_no_samples_are_an_error() -> None:
    for metric in (mean_at_n, accuracy_by_temperature, right_at_any_temperature, agreement):
        with pytest.raises(ValueError, match="no samples"):
            metric([])
    with pytest.raises(ValueError, match="no samples"):
        majority_at_k([], 1, seed=0)
    with pytest.raises(ValueError, match="no samples"):
        mean_pass_at_k([], 1)
