"""Columns by name, paths into columns, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from grpo_gsm8k.data.problems import ReadProblems, RowRules, problems_of
from grpo_gsm8k.data.readers import Row
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import AnswerKind
from grpo_gsm8k.grading.problem import Problem


def found(*rows: dict[str, Any], **rules: Any) -> ReadProblems:
    return problems_of((Row(f"row {i}", row) for i, row in enumerate(rows, start=1)), "train", RowRules(**rules))


def problems(*rows: dict[str, Any], **rules: Any) -> list[Problem]:
    return found(*rows, **rules).problems


def refusal(row: dict[str, Any], **rules: Any) -> str:
    with pytest.raises(UserError) as caught:
        problems(row, **rules)
    text = str(caught.value)
    assert text.startswith("row 1: ")
    assert text.isprintable()
    return text


def test_names_are_mapped_and_the_others_become_extra() -> None:
    row = {"problem": "1+1?", "solution": "It is two.", "answer": "2", "level": 5, "unique_id": "u/1"}
    columns = {"question": "problem", "answer": "solution", "gold": "answer", "id": "unique_id"}
    assert problems(row, columns=columns) == [Problem("u/1", "1+1?", "It is two.", "2", {"level": 5})]


def test_the_column_of_the_gold_answer_is_not_a_worked_answer() -> None:
    assert problems({"question": "?", "answer": "2 (pens)"}, columns={"gold": "answer"}) == [
        Problem("train-00000", "?", "2", "2")
    ]


def test_several_columns_are_one_question() -> None:
    row = {"body": "Ann has 2 pens.", "question": "How many?", "answer": "2 (pens)"}
    columns = {"question": ["body", "question"], "gold": "answer"}
    assert problems(row, columns=columns) == [Problem("train-00000", "Ann has 2 pens. How many?", "2", "2")]
    assert "column body is missing or empty" in refusal({**row, "body": " "}, columns=columns)
    assert "column body is a list, not text" in refusal({**row, "body": ["a"]}, columns=columns)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"question": "text"}, "no column 'text', which data.columns.question names; columns: question, answer, meta"),
        ({"answer": "solution"}, "no column 'solution'"),
        ({"gold": "meta.result"}, "no column 'meta.result', which data.columns.gold names"),
        ({"gold": "answer.x"}, "no column 'answer.x'"),
        ({"id": "uid"}, "no column 'uid'"),
        ({"question": ["question", "more"]}, "no column 'more'"),
        ({"id": "meta"}, "id must be a non-empty string or an integer"),
    ],
)
def test_a_missing_column_lists_those_that_there_are(columns: dict[str, Any], reason: str) -> None:
    assert reason in refusal({"question": "?", "answer": "#### 1", "meta": {"gold": 1}}, columns=columns)


def test_a_dotted_name_is_a_column_or_a_path() -> None:
    row = {"question": "?", "meta": {"gold": 3}, "a.b": "x"}
    columns = {"gold": "meta.gold", "id": "a.b"}
    assert problems(row, columns=columns) == [Problem("x", "?", "3", "3", {"meta": {"gold": 3}})]
    assert len(problems(row, columns=columns, where={"meta.gold": 3})) == 1
    assert found(row, columns=columns, where={"meta.gold": 4}).dropped == {"not selected by data.where": 1}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": 5}, "question is a number, not text"),
        ({"question": True}, "question is true or false, not text"),
        ({"question": None}, "question is missing or empty"),
        ({"question": float("nan")}, "question is missing or empty"),
        ({"question": " \n"}, "question is missing or empty"),
        ({"question": ["?"]}, "question is a list, not text"),
        ({"question": {"text": "?"}}, "question is an object, not text"),
        ({"question": b"?"}, "question is a value of type bytes, not text"),
        ({"question": "\ud800"}, "question contains an unpaired surrogate"),
        ({"answer": 5}, "answer is a number, not text; a number is a gold answer: set +data.columns.gold=answer"),
        ({"answer": None}, "answer is missing or empty"),
        ({"answer": "none"}, "no '####' in the answer 'none'"),
        ({"gold": None}, "gold is missing or empty"),
        ({"gold": float("nan")}, "gold is missing or empty"),
        ({"gold": " "}, "gold is missing or empty"),
        ({"gold": ["1"]}, "is not a number"),
        ({"gold": True}, "gold 'True' is not a number"),
        ({"gold": {"value": 1}}, "is not a number"),
        ({"gold": float("inf")}, "is not one number"),
        ({"gold": 2}, "gold '2' contradicts the answer, which ends in '#### 1'"),
        ({"gold": "\x1b[31m"}, "is not one number"),
        ({"id": None}, "id must be a non-empty string or an integer"),
        ({"id": 1.0}, "id must be a non-empty string or an integer"),
        ({"id": ["a"]}, "id must be a non-empty string or an integer"),
        ({"id": " "}, "id must be a non-empty string or an integer"),
        ({"id": "\udc00"}, "id contains an unpaired surrogate"),
        ({"x": b"1"}, "column x holds a value of type bytes"),
        ({"x": {"a\n": [float("-inf")]}}, "column x.a holds an infinite number"),
        ({"x": {1: 2}}, "column x holds an object, which JSON does not have"),
        ({"x": {"\ud800": 2}}, "column x contains an unpaired surrogate"),
        ({"x": ["\ud800"]}, "column x contains an unpaired surrogate"),
        ({"\ud800": "x"}, "column \\ud800 contains an unpaired surrogate"),
    ],
)
def test_values_that_cannot_be_used(row: dict[str, Any], reason: str) -> None:
    assert reason in refusal({"question": "?", "answer": "#### 1", **row})


@pytest.mark.parametrize(
    ("gold", "kind", "reason"),
    [
        (["x"], AnswerKind.TEXT, "is not a text"),
        (True, AnswerKind.TEXT, "gold 'True' is not a text"),
        (None, AnswerKind.TEXT, "gold is missing or empty"),
        ("\ud800", AnswerKind.TEXT, "gold contains an unpaired surrogate"),
        (float("inf"), AnswerKind.EXPRESSION, "gold 'inf' is not a text"),
        ("$notfound$", AnswerKind.EXPRESSION, "gold 'notfound' stands for no answer"),
        ("$$", AnswerKind.CHOICE, "is not the letter of a choice"),
    ],
)
def test_golds_of_other_kinds_that_cannot_be_used(gold: object, kind: AnswerKind, reason: str) -> None:
    assert reason in refusal({"question": "?", "gold": gold}, kind=kind)


@pytest.mark.parametrize(
    ("gold", "kind", "stored"),
    [
        (12.0, AnswerKind.TEXT, "12"),  # an integer in a column with missing values
        (0.5, AnswerKind.EXPRESSION, "0.5"),
        (" Ankara ", AnswerKind.TEXT, "Ankara"),
        ("$$\\sqrt{2}$$", AnswerKind.EXPRESSION, "\\sqrt{2}"),
        ("$1$ or $2$", AnswerKind.EXPRESSION, "$1$ or $2$"),
    ],
)
def test_golds_of_other_kinds(gold: object, kind: AnswerKind, stored: str) -> None:
    assert problems({"question": "?", "gold": gold}, kind=kind)[0].gold == stored


def test_a_prepared_row_is_a_source() -> None:
    row = {"id": "a", "question": "?", "answer": "#### 1", "gold": "1", "extra": {"level": 3}, "more": True}
    assert problems(row) == [Problem("a", "?", "#### 1", "1", {"level": 3, "more": True})]
    assert problems({"question": "?", "gold": 1, "extra": "text"})[0].extra == {"extra": "text"}
    both = {"question": "?", "gold": 1, "level": 1, "extra": {"level": 2}}
    assert problems(both)[0].extra == {"level": 1, "extra.level": 2}


def test_rows_are_selected_by_column() -> None:
    rows = [{"question": f"{i}?", "gold": i, "level": i, "ok": i < 3, "text": str(i)} for i in range(5)]
    assert [p.gold for p in problems(*rows, where={"level": [1, 2, 4], "ok": True})] == ["1", "2"]
    assert [p.gold for p in problems(*rows, where={"text": 3})] == ["3"]  # a file of texts, as CSV is
    assert problems(*rows, where={"ok": 1}) == []  # true is not a number
    assert "no column 'lvl', which data.where names; columns: question" in refusal(rows[0], where={"lvl": 1})


def test_unusable_rows_are_dropped_by_reason() -> None:
    good = {"question": "a?", "gold": 1}
    rows: list[dict[str, Any]] = [
        *(good, {**good, "question": " a?\n"}, {"question": "b?", "gold": 2, "id": "x"}),
        *({"question": "c?", "gold": 2, "id": "x"}, {"question": "d?", "gold": "it's"}, {"question": "f?", "gold": ""}),
        *({"question": " ", "gold": 1}, {"question": "g?"}, {"question": "h?", "gold": 3, "x": b"1"}),
        *({"question": "i?", "gold": 3}, {"question": "i?", "gold": 4}, {"question": "e?", "gold": "see above"}),
    ]
    kept = found(*rows, drop=True)
    assert [problem.gold for problem in kept.problems] == ["1", "2"]
    assert kept.dropped == {
        "repeated question": 2,
        "repeated question, another gold answer": 1,
        "repeated id": 1,
        "no gold answer of the kind number": 2,
        "gold is missing or empty": 1,
        "question is missing or empty": 1,
        "answer is missing": 1,
        "a column is not JSON": 1,
    }
    assert len(kept.problems) + kept.dropped.total() == len(rows)
    assert kept.first_error == "row 4: id 'x' is already used in row 3"
