"""Reward parts of texts."""

from __future__ import annotations

import math

import pytest

from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.grading import rewards
from grpo_gsm8k.grading.answers import AnswerFormat, Locale, grade
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.grading.rewards import RewardInput, RewardScore, validate_reward_weights

PROBLEM = Problem("train-00001", "What is 9 * 2?", "9 * 2 = 18\n#### 18", "18")
PROMPT = "Question: What is 9 * 2?\nAnswer:"
WEIGHTS = {"correct": 1.0, "format": 0.2}


def _item(text: str, truncated: bool = False) -> RewardInput:
    graded = grade(text, "18", AnswerFormat.HASH, Locale.EN)
    return RewardInput(PROBLEM, PROMPT, text, (1, 2, 3), "length" if truncated else "stop", graded)


def score(item: RewardInput, weights: dict[str, float]) -> RewardScore:
    return rewards.score(item, weights, rewards.REWARD_PARTS, {})


@pytest.mark.parametrize(
    ("text", "truncated", "correct", "fmt"),
    [
        ("9 * 2 = 18\n#### 18", False, 1.0, 1.0),
        ("#### 18 dollars", False, 1.0, 1.0),
        ("#### 17", False, 0.0, 1.0),
        ("The answer is 18", False, 0.0, 0.0),
        ("#### eighteen", False, 0.0, 0.0),
        ("", False, 0.0, 0.0),
        ("#### 18", True, 0.0, 0.0),
        ("#### 17", True, 0.0, 0.0),
        ("half a thought", True, 0.0, 0.0),
    ],
)
def test_parts_and_total(text: str, truncated: bool, correct: float, fmt: float) -> None:
    result = score(_item(text, truncated), WEIGHTS)
    assert result.parts == {"correct": correct, "format": fmt}
    assert result.total == pytest.approx(correct + 0.2 * fmt)


@pytest.mark.parametrize(
    ("text", "truncated", "wrong", "exact"),
    [
        ("#### 18", False, 0.0, 1.0),
        ("#### 18.0", False, 0.0, 0.0),  # correct, but not the gold text
        ("#### 17", False, 1.0, 0.0),
        ("no answer", False, 1.0, 0.0),
        ("#### 18", True, 1.0, 0.0),
        ("#### 17", True, 1.0, 0.0),
    ],
)
def test_wrong_and_exact_text(text: str, truncated: bool, wrong: float, exact: float) -> None:
    """What is not known to be right is wrong, so a negative weight does not make truncation attractive."""
    result = score(_item(text, truncated), {"wrong": -1.0, "exact_text": 2.0})
    assert result.parts == {"wrong": wrong, "exact_text": exact}
    assert result.total == 2.0 * exact - wrong


def test_values_from_elsewhere_are_weighted_alike() -> None:
    result = rewards.score(
        _item("#### 18"), {"mine": -0.5, "correct": 1.0}, rewards.REWARD_PARTS, {"mine": 3.0}, ("x",)
    )
    assert result == RewardScore(-0.5, {"mine": 3.0, "correct": 1.0}, ("x",))


def test_no_length_penalty() -> None:
    short, long = "#### 18", "so " * 5000 + "\n#### 18\n" + "bye " * 5000
    assert score(_item(short), WEIGHTS) == score(_item(long), WEIGHTS)


def test_a_part_sees_the_problem_and_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    def shows_the_question(item: RewardInput) -> float:
        return float(item.problem.question in item.prompt and item.problem.gold == "18")

    monkeypatch.setitem(rewards.REWARD_PARTS, "question", shows_the_question)
    assert score(_item("#### 18"), {"question": 1.0}).total == 1.0


def test_correct_implies_format() -> None:
    for text in ("#### 18", "#### 1,8", "18", "#### 18.0", "#### $18", "#### 18 18"):
        parts = score(_item(text), WEIGHTS).parts
        assert parts["correct"] <= parts["format"]


def test_zero_weight_is_watched_and_not_paid() -> None:
    result = score(_item("#### 17"), {"correct": 1.0, "format": 0.0})
    assert result.total == 0.0
    assert result.parts["format"] == 1.0


def test_unknown_part_names_the_key_and_the_known() -> None:
    with pytest.raises(UserError, match=r"policy_gradient\.rewards\.lenght: unknown.*correct, exact_text, format"):
        validate_reward_weights({"correct": 1.0, "lenght": 1.0})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, r"policy_gradient\.rewards: empty"),
        ({"correct": math.nan}, r"policy_gradient\.rewards\.correct: nan"),
        ({"format": math.inf}, r"policy_gradient\.rewards\.format: inf"),
    ],
)
def test_senseless_weights_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate_reward_weights(weights)


def test_good_weights_pass() -> None:
    validate_reward_weights(WEIGHTS)


def test_part_that_is_not_finite_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rewards.REWARD_PARTS, "broken", lambda item: math.nan)
    with pytest.raises(LabError, match="reward part broken returned nan"):
        score(_item("#### 18"), {"broken": 1.0})
