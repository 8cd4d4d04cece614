r"""Conversion of realistic traces to responses: what is removed, what stays, and the number on the final line."""

from __future__ import annotations

import functools
from decimal import Decimal

import pytest

from cli import load_config
from grpo_gsm8k.config import Config, PromptConfig, TracesConfig
from grpo_gsm8k.grading.answers import AnswerFormat, Locale, grade
from grpo_gsm8k.grading.grader import Grader
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.traces import formatting
from grpo_gsm8k.traces.formatting import FormatReport, PairLine, TrainLine, body_of, format_pairs, to_jsonl
from grpo_gsm8k.traces.trace_records import Answered, RawRecord, TraceSample, make_record

R = "Janet's ducks lay 16 eggs. She uses 3 + 4 = 7, so 9 are left, and 9 * 2 = 18."
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


def prompt(fmt: str, locale: str = "en") -> PromptConfig:
    return PromptConfig.model_validate(
        {
            "name": "test",
            "system": SYSTEM,
            "text": "{question}",
            "chat": True,
            "answer_format": fmt,
            "locale": locale,
        }
    )


def format_traces(
    records: list[RawRecord], traces: TracesConfig, prompt: PromptConfig
) -> tuple[list[TrainLine], FormatReport]:
    return formatting.format_traces(records, traces, prompt, Grader(prompt.answer_rules))


def record(
    text: str, fmt: str, gold: str = "18", reasoning: str | None = None, sample: int = 0, **changes: object
) -> RawRecord:
    problem = Problem(f"p{gold}", f"How much is {gold}?", "", gold)
    values: dict[str, object] = {"text": text, "reasoning": reasoning, "finish_reason": "stop", "model": "m"}
    answered = Answered(**(values | changes))  # type: ignore[arg-type]
    return make_record(TraceSample(problem, sample), answered, Grader(prompt(fmt).answer_rules))


# format, text, gold number, expected body, expected number
TABLE: list[tuple[str, str, str, str, str | None]] = [
    # one answer line, in each format
    ("hash", f"{R}\n#### 18", "18", R, "18"),
    ("boxed", f"{R}\n\\boxed{{18}}", "18", R, "18"),
    ("answer", f"{R}\nANSWER: 18", "18", R, "18"),
    ("last_number", f"{R}\nThe answer is 18.", "18", R, "18"),
    ("last_number", R, "18", R, "18"),
    # number formats
    ("hash", f"{R}\n#### 18.0", "18", R, "18"),
    ("hash", f"{R}\n#### 18.", "18", R, "18"),
    ("hash", f"{R}\n#### $18.00", "18", R, "18"),
    ("hash", "500 + 734 = 1,234.\n#### 1,234", "1234", "500 + 734 = 1,234.", "1234"),
    ("hash", "5 - 10 = -5.\n#### -5", "-5", "5 - 10 = -5.", "-5"),
    ("answer", "The price falls by 5.\nANSWER: -$5", "-5", "The price falls by 5.", "-5"),
    ("hash", "1 of 4 parts.\n#### 1/4", "0.25", "1 of 4 parts.", "0.25"),
    ("boxed", "Half of 25.\n\\boxed{12.50}", "12.5", "Half of 25.", "12.5"),
    ("boxed", f"{R}\n\\boxed{{\\text{{18}}}}", "18", R, "18"),
    ("boxed", f"{R}\n\\boxed{{\\$18}}", "18", R, "18"),
    ("boxed", f"{R}\n\\boxed{{18\\text{{ dollars}}}}", "18", R, "18"),
    ("boxed", "5 of 20.\n\\boxed{25\\%}", "25", "5 of 20.", "25"),
    ("boxed", "Twice 1,000.\n\\boxed{2{,}000}", "2000", "Twice 1,000.", "2000"),
    ("answer", f"{R}\nANSWER: 18 dollars per day", "18", R, "18"),
    ("answer", "5 of 20.\nANSWER: 25%", "25", "5 of 20.", "25"),
    # text around the answer
    ("boxed", f"{R}\n\n**Final Answer**\n\\boxed{{18}}", "18", R, "18"),
    ("boxed", f"{R}\n\n**Final Answer:** $\\boxed{{18}}$", "18", R, "18"),
    ("boxed", f"{R}\n\\[\n\\boxed{{18}}\n\\]", "18", R, "18"),
    ("boxed", f"{R}\n$$\\boxed{{18}}$$", "18", R, "18"),
    ("boxed", f"{R}\nTherefore, the final answer is \\boxed{{18}}.", "18", R, "18"),
    ("boxed", "So she makes 9 * 2 = \\boxed{18} dollars.", "18", "So she makes 9 * 2 = 18 dollars.", "18"),
    ("answer", f"{R}\n\n**ANSWER: 18**", "18", R, "18"),
    ("answer", f"{R}\n**Final Answer:** 18", "18", R, "18"),
    ("answer", f"{R}\n```\nANSWER: 18\n```", "18", R, "18"),
    ("hash", f"{R} #### 18", "18", R, "18"),
    ("hash", f"{R}\n**#### 18**", "18", R, "18"),
    ("hash", f"{R}\n\n---\n#### 18\n\n", "18", R, "18"),
    ("hash", "### Solution\n#### Step one\n16 - 7 = 9\n#### 9", "9", "### Solution\n#### Step one\n16 - 7 = 9", "9"),
    ("boxed", "We get\n\\[\n16 - 7 = 9\n\\]\n\\boxed{9}", "9", "We get\n\\[\n16 - 7 = 9\n\\]", "9"),
    # several answers
    ("answer", f"{R}\nANSWER: 18\nANSWER: 18\nANSWER: 18", "18", R, "18"),
    ("answer", f"ANSWER: 9\nWait, times two.\n{R}\nANSWER: 18", "18", f"ANSWER: 9\nWait, times two.\n{R}", "18"),
    ("boxed", "First \\boxed{9}, no: \\boxed{18}", "18", "First \\boxed{9}, no: \\boxed{18}", "18"),
    ("hash", f"#### 9\n{R}\n#### 18", "18", f"#### 9\n{R}", "18"),
    # echoes
    ("answer", f"I will output ANSWER: 18 at the end.\n{R}\nANSWER: 18", "18", R, "18"),
    ("boxed", f"{SYSTEM}\n{R}\n\\boxed{{18}}", "18", R, "18"),
    ("boxed", f"I should put the final answer in \\boxed{{}}. {R}\n\\boxed{{18}}", "18", R, "18"),
    ("boxed", f"The instructions say to show your reasoning.\n{R}\n\\boxed{{18}}", "18", R, "18"),
    ("hash", f"{R}\nSo the answer should be given in the format ####.\n#### 18", "18", R, "18"),
    ("boxed", f"Okay. The user wants the final answer boxed.\n{R}\n\\boxed{{18}}", "18", f"Okay.\n{R}", "18"),
    ("hash", f"The question asks what she makes.\n{R}\n#### 18", "18", f"The question asks what she makes.\n{R}", "18"),
    ("hash", "I give Tom 5 of the 7, so I write 2.\n#### 2", "2", "I give Tom 5 of the 7, so I write 2.", "2"),
    ("hash", "Let me think step by step.\n2 + 2 = 4\n#### 4", "4", "Let me think step by step.\n2 + 2 = 4", "4"),
    ("hash", "Put the 6 eggs in 2 boxes: 3 each.\n#### 3", "3", "Put the 6 eggs in 2 boxes: 3 each.", "3"),
    # a heading that the grader treats as the next problem
    ("last_number", f"16 eggs.\nQuestion: left?\n{R}", "18", f"16 eggs.\nThe question: left?\n{R}", "16"),
    ("hash", f"**Problem:** eggs\nQ 2: left?\n{R}\n#### 18", "18", f"**The problem:** eggs\nThe q 2: left?\n{R}", "18"),
    # nothing readable
    ("hash", R, "18", R, None),
    ("boxed", "I cannot tell \\boxed{}", "18", "I cannot tell \\boxed{}", None),
    ("boxed", "It is \\boxed{9 or 18}", "18", "It is \\boxed{9 or 18}", None),
    ("answer", "ANSWER: about 5 million", "18", "ANSWER: about 5 million", None),
    ("hash", "", "18", "", None),
    ("hash", "#### 18", "18", "", "18"),
]


@pytest.mark.parametrize(("fmt", "text", "gold", "body", "number"), TABLE)
def test_table(fmt: str, text: str, gold: str, body: str, number: str | None) -> None:
    made = record(text, fmt, gold)
    assert made.number == number
    assert body_of(made, True, prompt(fmt))[0] == body
    lines, report = format_traces([made], options(drop_empty=False), prompt(fmt))
    assert report.kept + sum(report.to_json()["dropped"].values()) == 1
    assert bool(lines) == made.correct, report
    for line in lines:
        graded = grade(line.response, gold, AnswerFormat(fmt), Locale.EN)
        assert graded.correct
        assert graded.well_formed
        assert line.response.splitlines()[-1] in {
            f"#### {gold}",
            f"\\boxed{{{gold}}}",
            f"ANSWER: {gold}",
            f"The answer is {gold}.",
        }


@functools.cache  # composing the configuration takes 0.3 s
def config(**changes: object) -> Config:
    return load_config(["command=traces", *(f"traces.{key}={str(value).lower()}" for key, value in changes.items())])


def options(**changes: object) -> TracesConfig:
    return config(**changes).traces


@pytest.mark.parametrize(
    ("sentence", "is_echo"),
    [
        ("I'll make sure to put the final answer in \\boxed{}.", True),
        ("So, putting the final answer in \\boxed{}.", True),
        ("Now I need to present the answer in the required format.", True),
        ("The final answer should be boxed.", True),
        ("Remember: show your work.", True),
        ("End with a line of the form: #### <number>", True),
        ("Following the instructions, I will reason first.", True),
        ("Wait, the instructions say to use ANSWER: <number>.", True),
        ("The user asks how much Janet makes every day.", False),
        ("She needs to put the eggs in the box and answer the door.", False),
        ("Let me use the final answer to check.", False),
        ("We write the answer in dollars.", False),
        ("So the final answer is \\boxed{18}.", False),
    ],
)
def test_echoes(sentence: str, is_echo: bool) -> None:
    made = record(f"{R}\n{sentence}\nAll good.\n\\boxed{{18}}", "boxed")
    expected = f"{R}\nAll good." if is_echo else f"{R}\n{sentence}\nAll good."
    assert body_of(made, True, prompt("boxed"))[0] == expected


def test_the_table_is_large_enough() -> None:
    assert len(TABLE) >= 40


def test_digits_protect_a_sentence_that_looks_like_an_echo() -> None:
    text = "I give Tom 5 apples, so the final answer is 5.\nHe has 7 left.\n#### 7"
    assert "Tom 5 apples" in body_of(record(text, "hash", "7"), True, prompt("hash"))[0]


def test_headings_that_would_open_another_problem_are_worded_differently() -> None:
    text = f"{R}\n**Question:** what is left?\nHuman 2: 9\n{R}\n#### 18"
    (line,), _ = format_traces([record("#### 18", "hash", reasoning=text)], options(), prompt("hash"))
    assert "**The question:** what is left?\nThe human 2: 9" in line.response
    assert grade(line.response, "18", AnswerFormat.HASH, Locale.EN).correct


def test_reasoning_comes_before_text_and_is_cleaned() -> None:
    made = record("Short. \\boxed{18}", "boxed", reasoning=f"I need to put the final answer in \\boxed{{}}.\n{R}")
    (line,), report = format_traces([made], options(), prompt("boxed"))
    assert line.response == f"{R}\n\\boxed{{18}}"
    assert report.echoes_removed == 1


def test_thinking_inside_of_the_text_is_reasoning() -> None:
    made = record(f"<think>\n{R}\n</think>\nSo: \\boxed{{18}}", "boxed")
    assert body_of(made, True, prompt("boxed"))[0] == R


def test_without_the_switch_echoes_stay() -> None:
    made = record(f"{SYSTEM}\n{R}\n\\boxed{{18}}", "boxed")
    assert body_of(made, False, prompt("boxed")) == (f"{SYSTEM}\n{R}", 0)


def test_each_filter_has_its_switch_and_count() -> None:
    records = [
        record(f"{R}\n#### 18", "hash"),
        record(f"{R}\n#### 18.0", "hash", sample=1),
        record(f"{R} Cut. #### 18", "hash", sample=2, finish_reason="length"),
        record("It is 9 + 9 + 1.\n#### 19", "hash", sample=3),
        record("No idea.", "hash", sample=4),
        record("#### 18", "hash", sample=5),
        record("9 * 2 = 18\n#### 18", "hash", sample=6),
    ]
    lines, report = format_traces(records, options(), prompt("hash"))
    assert [line.id for line in lines] == ["p18/0", "p18/6"]
    dropped = {name: count for name, count in report.to_json()["dropped"].items() if count}
    assert dropped == {"duplicate": 1, "truncated": 1, "wrong": 1, "no_answer": 1, "empty": 1}
    shortest, report = format_traces(records, options(shortest=1), prompt("hash"))
    assert [line.id for line in shortest] == ["p18/6"]
    assert report.dropped.longer == 1
    everything = options(drop_duplicates=False, drop_truncated=False, drop_wrong=False, drop_empty=False)
    lines, report = format_traces(records, everything, prompt("hash"))
    assert [line.id for line in lines] == [f"p18/{n}" for n in (0, 1, 2, 3, 5, 6)]
    assert lines[3].response == "It is 9 + 9 + 1.\n#### 19"
    assert lines[4].response == "#### 18"


def test_turkish_numbers_are_written_the_turkish_way() -> None:
    turkish = prompt("hash", "tr")
    problem = Problem("p", "Kaç?", "", "1234.5")
    made = make_record(
        TraceSample(problem, 0), Answered(text="Toplam budur.\n#### 1.234,50"), Grader(turkish.answer_rules)
    )
    (line,), _ = format_traces([made], options(), turkish)
    assert line.response == "Toplam budur.\n#### 1234,5"
    assert grade(line.response, "1234.5", AnswerFormat.HASH, Locale.TR).correct


def test_lines_are_one_object_each() -> None:
    lines, _ = format_traces([record(f"{R}\n#### 18", "hash")], options(), prompt("hash"))
    assert to_jsonl(lines).count("\n") == 1
    assert Decimal(lines[0].response.split()[-1]) == 18


def test_answers_in_tags_and_by_a_pattern_are_written_once() -> None:
    for keys, last in (
        ({"answer_format": "tags", "answer_tag": "cevap"}, "<cevap>18</cevap>"),
        (
            {"answer_format": "regex", "answer_pattern": "Cevap: *(.+)", "answer_template": "Cevap: {answer}"},
            "Cevap: 18",
        ),
    ):
        made = PromptConfig.model_validate({**prompt("hash").model_dump(), **keys})
        problem = Problem("p18", "How much is 18?", "", "18")
        answered = Answered(text=f"{R}\n{last}\n", finish_reason="stop", model="m")
        raw = make_record(TraceSample(problem, 0), answered, Grader(made.answer_rules))
        (line,), _ = format_traces([raw], options(), made)
        assert line.response == f"{R}\n{last}"


def test_pairs_have_a_right_and_a_wrong_response_to_one_problem() -> None:
    records = [
        record(f"{R}\n#### 18", "hash"),
        record("9 * 2 = 18\n#### 18", "hash", sample=1),
        record("9 * 2 = 18\n#### 18", "hash", sample=2),  # the same again
        record("It is 9 + 9 + 1.\n#### 19", "hash", sample=3),
        record("No idea.", "hash", sample=4),
        record("Cut. #### 20", "hash", sample=5, finish_reason="length"),
        record("It is 9 + 9 + 2.\n#### 20", "hash", sample=6),
        record("It is 9 + 9 + 3.\n#### 21", "hash", sample=7),
        record("5 + 5 = 10\n#### 10", "hash", gold="10"),  # without a wrong one
    ]

    def pairs(limit: int) -> list[PairLine]:
        made = prompt("hash")
        return format_pairs(records, options(pairs=limit, samples_per_prompt=8), made, Grader(made.answer_rules))

    every = pairs(100)
    assert len(every) == len({(line.chosen, line.rejected) for line in every}) == 6
    for line in every:
        assert line.prompt == "How much is 18?"
        assert grade(line.chosen, "18", AnswerFormat.HASH, Locale.EN).correct
        assert not grade(line.rejected, "18", AnswerFormat.HASH, Locale.EN).correct
    assert [line.id for line in pairs(3)] == ["p18/0-3", "p18/1-6", "p18/0-7"]  # each wrong one once
    assert {line.chosen for line in pairs(2)} == {f"{R}\n#### 18", "9 * 2 = 18\n#### 18"}
