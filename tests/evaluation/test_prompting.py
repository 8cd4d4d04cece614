"""Prompting variants: number of worked examples, and no leak of evaluated questions."""

from __future__ import annotations

import pytest

from cli import load_config
from grpo_gsm8k.config import PromptConfig
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.evaluation.prompting import repeats, shots_of, without_instruction
from grpo_gsm8k.grading.problem import Problem

TRAIN = [Problem(str(i), f"What is {i} + {i}?", f"{i} + {i} = {2 * i}\n#### {2 * i}", str(2 * i)) for i in range(30)]
EVALUATED = TRAIN[::2]  # as when the evaluated set is taken from train


def prompt(name: str) -> PromptConfig:
    return load_config(["command=eval", "preset=cpu_demo", f"prompt={name}"]).prompt


def test_no_example_is_a_question_that_is_evaluated() -> None:
    shots = shots_of("few_shot", 15, TRAIN, EVALUATED, prompt("base"), 0)
    assert {shot.question for shot in shots} == {problem.question for problem in TRAIN[1::2]}
    with pytest.raises(UserError, match=r"eval\.shots=16: train has only 15"):
        shots_of("few_shot", 16, TRAIN, EVALUATED, prompt("base"), 0)


def test_fewer_examples_are_the_first_of_more_and_the_seed_chooses() -> None:
    eight = shots_of("few_shot", 8, TRAIN, EVALUATED, prompt("base"), 0)
    assert shots_of("one_shot", 8, TRAIN, EVALUATED, prompt("base"), 0) == eight[:1]
    assert shots_of("one_shot_bare", 8, TRAIN, EVALUATED, prompt("base"), 0) == eight[:1]
    assert shots_of("few_shot", 8, TRAIN, EVALUATED, prompt("base"), 0) == eight
    assert shots_of("few_shot", 8, TRAIN, EVALUATED, prompt("base"), 1) != eight
    assert shots_of("zero_shot", 8, TRAIN, EVALUATED, prompt("base"), 0) == ()


def test_examples_are_marked_as_answers_are_asked_for() -> None:
    (shot,) = shots_of("one_shot", 8, TRAIN, EVALUATED, prompt("qwen_cot"), 0)
    assert "\\boxed{" in shot.response
    (shot,) = shots_of("one_shot", 8, TRAIN, EVALUATED, prompt("chat"), 0)
    assert "####" in shot.response


@pytest.mark.parametrize(("name", "said"), [("base", ["zero_shot_bare"]), ("chat", [])])
def test_a_way_that_asks_nothing_new_is_told_of(name: str, said: list[str]) -> None:
    assert repeats(["zero_shot", "zero_shot_bare", "one_shot_bare"], prompt(name)) == said
    assert without_instruction(prompt(name)).system == ""
