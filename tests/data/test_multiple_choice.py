"""Choices below the question, and the letter of the right one."""

from __future__ import annotations

from typing import Any

import pytest

from grpo_gsm8k.grading.answers import AnswerKind
from tests.data.test_columns import problems, refusal

LABELED = {"text": ["x", "y"], "label": ["2", "1"]}


@pytest.mark.parametrize(
    ("choices", "gold", "letter"),
    [
        (["1", "3", "2"], 1, "B"),  # an index
        (["1", "3", "2"], "3", "B"),  # a text
        ([1, 3, 2], "3", "B"),
        (["a", "b"], "(b)", "B"),
        (["x", "y"], "B.", "B"),
        (["x", "y"], "y", "B"),
        (["x", "y"], "It is y\n#### B", "B"),
        (LABELED, "2", "A"),  # a label, not an index and not a text
        (LABELED, "y", "B"),
        ({"text": ["x", "y"], "label": ["B", "A"]}, "A", "B"),
        (["A", "B"], "B", "B"),
        (None, "C", "C"),
    ],
)
def test_the_letter(choices: Any, gold: object, letter: str) -> None:
    row = {"question": "?", "choices": choices, "gold": gold}
    assert problems(row, kind=AnswerKind.CHOICE)[0].gold == letter


def test_choices_are_shown_below_the_question() -> None:
    row = {"question": "Largest?", "choices": ["1", "3"], "gold": 1}
    (problem,) = problems(row, kind=AnswerKind.CHOICE)
    assert (problem.question, problem.answer, problem.extra) == ("Largest?\nA) 1\nB) 3", "B", {"choices": ["1", "3"]})
    assert problems(row)[0].question == "Largest?"  # other kinds keep choices as a further column


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"choices": "a,b", "gold": "A"}, "choices is text: it must be a list of texts"),
        ({"choices": ["a"], "gold": "A"}, "choices has 1 items: it must have 2 to 26"),
        ({"choices": ["a"] * 27, "gold": "A"}, "choices has 27 items"),
        ({"choices": ["a", None], "gold": "A"}, "must be a list of texts"),
        ({"choices": ["a", " "], "gold": "A"}, "must be a list of texts"),
        ({"choices": ["x", "y"], "gold": "C"}, "gold 'C' is beyond the 2 choices"),
        ({"choices": ["x", "y"], "gold": 2}, "gold '2' is beyond the 2 choices"),
        ({"choices": ["x", "y"], "gold": -1}, "gold '-1' is beyond the 2 choices"),
        ({"choices": ["B", "A"], "gold": "A"}, "gold 'A' can mean two of the choices"),
        ({"choices": ["x", "x"], "gold": "x"}, "gold 'x' can mean two of the choices"),
        ({"choices": ["the x", "the x"], "gold": "the x"}, "can mean two of the choices"),
        ({"choices": {"text": ["a", "b"], "label": ["1", "1"]}, "gold": "1"}, "choices.label must have one label"),
        ({"choices": {"text": ["a", "b"], "label": ["1"]}, "gold": "1"}, "choices.label must have one label"),
        ({"choices": LABELED, "gold": "A"}, "gold 'A' is not the letter of a choice"),
        ({"gold": "AB"}, "is not the letter of a choice"),
        ({"gold": True}, "gold 'True' is not the letter of a choice"),
        ({"gold": ["B"]}, "is not the letter of a choice"),
        ({"gold": 1.0}, "gold '1.0' is not the letter of a choice"),
        ({"gold": "Ç"}, "is not the letter of a choice"),
    ],
)
def test_choices_that_cannot_be_read(row: dict[str, Any], reason: str) -> None:
    assert reason in refusal({"question": "?", **row}, kind=AnswerKind.CHOICE)
