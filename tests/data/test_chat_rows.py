"""Rows of messages, and rows made for verl."""

from __future__ import annotations

from typing import Any

import pytest

from grpo_gsm8k.grading.problem import Problem
from tests.data.test_columns import problems, refusal


def chat(*turns: str) -> list[dict[str, Any]]:
    return [dict(zip(("role", "content"), turn.split(": ", 1), strict=True)) for turn in turns]


def test_messages() -> None:
    row = {"messages": chat("user: 1+1?", "assistant: Two. #### 2"), "source": "s"}
    assert problems(row) == [Problem("train-00000", "1+1?", "Two. #### 2", "2", {"source": "s"})]
    parts = [{"role": "user", "content": [{"type": "text", "text": "1+1"}, {"type": "text", "text": "?"}]}]
    assert problems({"messages": parts, "gold": 2})[0].question == "1+1?"
    named = {"dialog": chat("system: Be brief.", "user: 1+1?"), "gold": 2}
    assert problems(named, columns={"question": "dialog"}) == [
        Problem("train-00000", "1+1?", "2", "2", {"system": "Be brief."})
    ]
    assert problems({**named, "system": "s"}, columns={"question": "dialog"})[0].extra == {
        "system": "s",
        "dialog.system": "Be brief.",
    }
    assert problems({"question": chat("user: 1+1?", "assistant: #### 2")})[0].question == "1+1?"


ONE_ANSWER = "a problem is one user turn and at most one answer to it"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "messages must be a list of messages"),
        (None, "messages must be a list of messages"),
        ("text", "messages must be a list of messages"),
        (["text"], "messages must be a list of messages"),
        ([{"from": "human", "value": "?"}], "messages must be a list of messages"),
        (chat("assistant: #### 2"), "0 user messages, but a problem has one question"),
        (chat("system: a"), "0 user messages"),
        (chat("user: a", "assistant: b", "user: c", "assistant: #### 2"), "2 user messages"),
        (chat("user: a", "assistant: b", "assistant: #### 2"), ONE_ANSWER),
        (chat("assistant: #### 2", "user: a"), ONE_ANSWER),  # not an answer to the question
        (chat("user: a", "system: b", "assistant: #### 2"), ONE_ANSWER),
        (chat("system: a", "system: b", "user: c", "assistant: #### 2"), ONE_ANSWER),
        (chat("user: a", "tool: 5", "assistant: #### 2"), "messages[1].role is 'tool': a problem has the roles"),
        ([{"role": 5, "content": "a"}], "messages[0].role is '5'"),
        ([{"role": "user", "content": [{"type": "image"}]}], "messages[0].content is not text"),
        ([{"role": "user", "content": []}], "messages[0].content is not text"),
        ([{"role": "user", "content": None}], "messages[0].content is not text"),
        ([{"role": "user"}], "messages[0].content is not text"),
        (chat("user:  ", "assistant: #### 2"), "question is missing or empty"),
        (chat("user: a", "assistant:  "), "answer is missing or empty"),
        (chat("user: a"), "answer is missing; columns: messages; set +data.columns.answer=COLUMN"),
        (chat("user: a", "assistant: none"), "no '####' in the answer 'none'"),
        ([*chat("user: a"), {"role": "assistant", "content": "", "tool_calls": [1]}], "messages[1] has tool calls"),
    ],
)
def test_messages_that_are_not_a_question_and_its_answer(messages: Any, reason: str) -> None:
    assert reason in refusal({"messages": messages})


def test_a_column_that_contradicts_the_messages() -> None:
    row = {"messages": chat("user: 1+1?", "assistant: Two. #### 2"), "answer": "3"}
    reason = "answer is both a column and in the messages: set +data.columns.answer=answer or +data.columns.gold=answer"
    assert reason in refusal(row)
    assert "gold '3' contradicts the answer" in refusal(row, columns={"gold": "answer"})
    (problem,) = problems({**row, "answer": "2"}, columns={"gold": "answer"})
    assert (problem.answer, problem.gold, problem.extra) == ("Two. #### 2", "2", {})
    (problem,) = problems({**row, "answer": "so #### 2"}, columns={"answer": "answer"})
    assert (problem.answer, problem.extra) == ("so #### 2", {})
    assert len(problems({**row, "answer": "Two. #### 2"})) == 1


MODEL = {"ground_truth": "2", "style": "rule"}


@pytest.mark.parametrize("prompt", ["1+1?", chat("user: 1+1?")])
def test_verl_rows(prompt: Any) -> None:
    row = {"data_source": "gsm", "prompt": prompt, "ability": "math", "reward_model": MODEL, "extra_info": {"index": 7}}
    (problem,) = problems(row)
    assert (problem.question, problem.answer, problem.gold) == ("1+1?", "2", "2")
    assert problem.extra == {"data_source": "gsm", "ability": "math", "reward_model": MODEL, "index": 7}
    assert problems(row, columns={"id": "extra_info.index", "gold": "reward_model.ground_truth"})[0].id == "7"
    assert problems(row, columns={"id": "index"})[0].id == "7"
    assert "reward_model has no ground_truth" in refusal({**row, "reward_model": {"style": "rule"}})
    assert "gold is missing or empty" in refusal({**row, "reward_model": {"ground_truth": None}})
    assert "is not a number" in refusal({**row, "reward_model": {"ground_truth": ["1", "2"]}})
    assert "question is missing; columns: data_source, prompt" in refusal({**row, "reward_model": "2"})
    assert problems({**row, "reward_model": {"ground_truth": ["2"]}})[0].gold == "2"
    assert problems({**row, "extra_info": None})[0].extra["extra_info"] is None


def test_the_question_of_verl_without_its_instruction() -> None:
    info = {"question": "1+1?", "answer": "Two.\n#### 2", "ability": "easy"}
    prompt = chat("system: Be brief.", "user: 1+1? Think.")
    row = {"prompt": prompt, "reward_model": MODEL, "extra_info": info, "ability": "math"}
    (problem,) = problems(row)
    assert (problem.question, problem.answer, problem.gold) == ("1+1?", "Two.\n#### 2", "2")
    extra = {"reward_model": MODEL, "ability": "math", "extra_info.ability": "easy", "system": "Be brief."}
    assert problem.extra == extra
    (problem,) = problems(row, columns={"question": "prompt"})
    assert (problem.question, problem.extra) == ("1+1? Think.", {**extra, "question": "1+1?"})
