"""Functions of TRL's signature get what TRL would give them."""

from __future__ import annotations

from typing import Any

import pytest

from grpo_gsm8k.grading.answers import AnswerFormat, Locale, grade
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.grading.rewards import RewardInput
from grpo_gsm8k.grading.trl_rewards import trl_reward

PROBLEM = Problem("p-1", "What is 2 + 3?", "2 + 3 = 5\n#### 5", "5", {"level": 3, "tags": ["sum"]})


def items(*texts: str) -> list[RewardInput]:
    graded = grade("#### 5", "5", AnswerFormat.HASH, Locale.EN)
    return [RewardInput(PROBLEM, "Q: What is 2 + 3?\nA:", t, (7, len(t)), "stop", graded) for t in texts]


def test_arguments_are_lists_with_one_entry_per_completion() -> None:
    seen: dict[str, Any] = {}

    def reward(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        seen.update(columns, prompts=prompts, completions=completions)
        return [float(len(text)) for text in completions]

    assert trl_reward(reward)(items("a", "bcd")) == [1.0, 3.0]
    assert seen == {
        "prompts": ["Q: What is 2 + 3?\nA:"] * 2,
        "completions": ["a", "bcd"],
        "completion_ids": [[7, 1], [7, 3]],
        "completions_ids": [[7, 1], [7, 3]],
        "question": [PROBLEM.question] * 2,
        "answer": [PROBLEM.answer] * 2,
        "gold": ["5", "5"],
        "level": [3, 3],
        "tags": [["sum"], ["sum"]],
    }


def test_conversations_and_renamed_columns() -> None:
    def correctness(prompts: Any, completions: Any, answer: list[str]) -> list[float]:
        assert prompts[0][-1]["content"] == PROBLEM.question
        return [2.0 if c[0]["content"] == a else 0.0 for c, a in zip(completions, answer, strict=True)]

    assert trl_reward(correctness, chat=True, columns={"answer": "gold"})(items("5", "6")) == [2.0, 0.0]


def test_only_what_the_function_takes_is_passed() -> None:
    assert trl_reward(lambda completions, level: [float(level[0])] * len(completions))(items("a")) == [3.0]


def test_none_counts_as_zero_and_coroutines_are_awaited() -> None:
    async def reward(completions: list[str], **_: Any) -> list[float | None]:
        return [None if text == "a" else 1.0 for text in completions]

    assert trl_reward(reward)(items("a", "b")) == [0.0, 1.0]


def test_missing_columns_are_named() -> None:
    with pytest.raises(KeyError, match="no column 'solution'; there are question, answer, gold, level, tags"):
        trl_reward(lambda completions: [0.0], columns={"truth": "solution"})(items("a"))
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'truth'"):
        trl_reward(lambda completions, truth: [0.0])(items("a"))
    with pytest.raises(TypeError, match="returned a float"):
        trl_reward(lambda completions: 1.0)(items("a"))
