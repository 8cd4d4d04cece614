"""The shape of grids, and questions that a model was not asked."""

from __future__ import annotations

from collections import Counter

import pytest

from grpo_gsm8k.report.grids import grid_size, question_grids
from grpo_gsm8k.report.material import AnswerSet


def answer_set(label: str, shares: dict[str, float]) -> AnswerSet:
    right = {(name, f"{name}?"): share for name, share in shares.items()}
    return AnswerSet(label, "run", None, {}, right, Counter(), 1, label)


@pytest.mark.parametrize(
    ("items", "size"), [(1, (1, 1)), (2, (1, 2)), (3, (2, 2)), (5, (2, 3)), (100, (10, 10)), (256, (16, 16))]
)
def test_a_grid_is_nearly_square(items: int, size: tuple[int, int]) -> None:
    assert grid_size(items) == size
    for other in range(1, 400):
        rows, columns = grid_size(other)
        assert rows * columns >= other > (rows - 1) * columns
        assert columns - rows in (0, 1)


def test_questions_keep_their_place_and_unasked_ones_are_gaps() -> None:
    sets = [answer_set("one", {"a": 1.0, "b": 0.0}), answer_set("two", {"b": 0.2, "c": 0.0})]
    overlay, one, two = question_grids(sets)
    assert one.data[0]["z"] == [[1.0, 0.0], [None, None]]
    assert two.data[0]["z"] == [[None, 1.0], [0.0, None]]
    assert two.data[0]["hovertext"] == [["a: not asked", "b: right in 20.0 %"], ["c: wrong", ""]]
    assert overlay.data[0]["z"] == [[1, 1], [0, None]]
    assert overlay.words[0].startswith("2 of 3 questions were solved by at least one of 2 models")


def test_one_model_has_no_overlay_and_none_has_no_grid() -> None:
    assert [figure.title for figure in question_grids([answer_set("one", {"a": 1.0})])] == ["one"]
    assert question_grids([]) == []
