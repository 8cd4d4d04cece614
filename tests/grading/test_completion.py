"""The part of a completion that counts: after the reasoning, before the next problem or chat turn."""

from __future__ import annotations

import pytest

from grpo_gsm8k.grading.answers import AnswerFormat, Locale, extract, grade
from grpo_gsm8k.grading.completion import after_reasoning, before_stop, problems

HASH, BOXED, LAST = AnswerFormat.HASH, AnswerFormat.BOXED, AnswerFormat.LAST_NUMBER


@pytest.mark.parametrize(
    ("text", "stops", "before"),
    [
        ("42\n\nQuestion: 1+1", ("Question:",), "42\n\n"),
        ("a Q: b A: c", ("A:", "Q:"), "a "),  # the first one in the text, not in the list
        ("Question:", ("Question:",), ""),
        ("nothing", ("Question:",), "nothing"),
        ("nothing", (), "nothing"),
    ],
)
def test_text_before_a_stop_text(text: str, stops: tuple[str, ...], before: str) -> None:
    assert before_stop(text, stops) == before


@pytest.mark.parametrize(
    ("text", "fmt", "raw"),
    [
        ("<think>#### 17</think>\n#### 18", HASH, "18"),
        ("#### 17</think>\n#### 18", HASH, "18"),  # the template opened the reasoning
        ("#### 17</think>\nNo marker.", HASH, None),
        (r"<think>\boxed{17}</think> It is \boxed{18}.", BOXED, "18"),
        ("17</think>18", LAST, "18"),
        ("17</think>", LAST, None),
        ("a</think>#### 17</think>#### 18", HASH, "18"),
        ("<think>#### 18", HASH, None),
        ("<think>#### 17</think>#### 18<think>hm", HASH, None),
        ("<think>Question: #### 17\n</think>\n#### 18\nuser\n#### 19", HASH, "18"),
        ("#### 18", HASH, "18"),
    ],
)
def test_only_what_follows_the_reasoning_counts(text: str, fmt: AnswerFormat, raw: str | None) -> None:
    assert extract(text, fmt, Locale.EN) == raw
    assert grade(text, "18", fmt, Locale.EN).correct == (raw == "18")


@pytest.mark.parametrize(
    ("text", "end", "expected"),
    [
        ("a</r>b", "</r>", "b"),
        ("a</think>b", "</r>", "a</think>b"),
        ("<r>a", "</r>", None),
        ("[THINK]a", "[/THINK]", None),
        ("[THINK]a[/THINK]b", "[/THINK]", "b"),
        ("a FINAL: b", "FINAL:", " b"),
        ("ab", "FINAL:", "ab"),
        ("<think>a", None, None),
    ],
)
def test_the_end_of_reasoning_can_be_configured(text: str, end: str | None, expected: str | None) -> None:
    assert after_reasoning(text, end) == expected


@pytest.mark.parametrize(
    "turn",
    ["user", "User", "assistant", "human", "Human ", "**user**", "<|user|>", "<|assistant|>", "<|im_start|>user",
     "### User", "[USER]", "user\r", "Assistant: hello", "Human: thanks", "- User:", "kullanıcı", "Asistan:"],
)  # fmt: skip
def test_a_chat_turn_ends_the_answer(turn: str) -> None:
    for text, fmt in [
        (f"#### 18\n{turn}\nAnd 2+2?\n#### 4", HASH),
        (f"\\boxed{{18}}\n{turn}\n\\boxed{{4}}", BOXED),
        (f"It is 18.\n{turn}\nAnd 4?", LAST),
    ]:
        assert grade(text, "18", fmt, Locale.EN).correct, text
        assert not grade(text, "4", fmt, Locale.EN).correct, text


def test_an_unreadable_answer_is_not_replaced_by_that_of_the_next_turn() -> None:
    assert not grade("#### 5 million\nuser\nAnd 2+3?\nassistant\n#### 5", "5", HASH, Locale.EN).well_formed


@pytest.mark.parametrize("line", ["The user pays 3.", "user 3", "users", "Each human has 2", "assistants"])
def test_the_same_words_in_a_sentence_end_nothing(line: str) -> None:
    assert list(problems(f"#### 17\n{line}\n#### 18")) == [f"#### 17\n{line}\n#### 18"]


def test_a_turn_before_the_answer_is_skipped() -> None:
    assert grade("assistant\nIt is 9 * 2.\n#### 18", "18", HASH, Locale.EN).correct
