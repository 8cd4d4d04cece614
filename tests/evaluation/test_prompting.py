"""Prompting variants: number of worked examples, and no leak of evaluated questions."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cli import load_config
from grpo_gsm8k.config import Config, PromptConfig
from grpo_gsm8k.data.prompts import Shot, render
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.evaluation.prompting import drawn_examples, repeats, shot_count, without_instruction, worked_examples
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.tiny import MODEL_FOLDER
from tests.conftest import REPO
from tests.data.test_prompts import TEMPLATE

TRAIN = [Problem(str(i), f"What is {i} + {i}?", f"{i} + {i} = {2 * i}\n#### {2 * i}", str(2 * i)) for i in range(30)]
EVALUATED = TRAIN[::2]  # as when the evaluated set is taken from train


def prompt(name: str) -> PromptConfig:
    return load_config(["command=eval", "preset=cpu_demo", f"prompt={name}"]).prompt


def shots_of(
    way: str, shots: int, train: list[Problem], evaluated: list[Problem], template: PromptConfig, seed: int
) -> tuple[Shot, ...]:
    return drawn_examples(shot_count(way, shots), train, evaluated, template, seed)


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


NATALIA = REPO / "examples" / "natalia.jsonl"
INSTRUCTION = (
    "You are a helpful math assistant. Please provide a step-by-step derivation and end your answer with the final "
    "numerical result in the format '#### <number>'."
)
EXAMPLE = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did "
    "Natalia sell altogether in April and May?",
    "Natalia sold 48 clips in April.\nIn May, she sold half as many clips as in April, so she sold $48 / 2 = 24$ clips."
    "\nAltogether, Natalia sold $48 + 24 = 72$ clips.\n#### 72",
)
WAYS = ["zero_shot", "zero_shot_bare", "one_shot", "one_shot_bare"]


def evaluation(*more: str, template: str = "base") -> Config:
    return load_config(["command=eval", "preset=cpu_demo", f"prompt={template}", *more])


def four_prompts(template: str) -> dict[str, str]:
    """Render a question in the four ways of one evaluation."""
    ways = f"eval.prompting=[{','.join(WAYS)}]"
    config = evaluation(ways, f"eval.examples_file={NATALIA}", "prompt.system=''", template=template)
    prompt = config.prompt.model_copy(update={"instruction": INSTRUCTION})
    config = config.model_copy(update={"prompt": prompt})
    examples = worked_examples(config, [], EVALUATED)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    tokenizer.chat_template = TEMPLATE
    return {
        way: render(
            without_instruction(prompt) if way.endswith("_bare") else prompt,
            "1+1?",
            tokenizer,
            examples[: shot_count(way, config.eval.shots)],
        )
        for way in WAYS
    }


def test_the_four_ways_of_a_plain_prompt() -> None:
    question, response = EXAMPLE
    shown = f"Question: {question}\nAnswer: {response}\n\n"
    asked = "Question: 1+1?\nAnswer:"
    assert four_prompts("base") == {
        "zero_shot": f"{INSTRUCTION}\n\n{asked}",
        "zero_shot_bare": asked,
        "one_shot": f"{INSTRUCTION}\n\n{shown}{asked}",
        "one_shot_bare": shown + asked,
    }


def test_the_four_ways_of_a_chat_prompt() -> None:
    question, response = EXAMPLE
    asked, opened = "<s>user:1+1?</s>", "<s>assistant:"
    assert four_prompts("chat") == {
        "zero_shot": f"<s>user:{INSTRUCTION}\n\n1+1?</s>{opened}",
        "zero_shot_bare": asked + opened,
        "one_shot": f"<s>user:{INSTRUCTION}\n\n{question}</s>{opened}{response}</s>{asked}{opened}",
        "one_shot_bare": f"<s>user:{question}</s>{opened}{response}</s>{asked}{opened}",
    }


def examples_of(tmp_path: Path, *lines: str, shots: int = 2, template: str = "base") -> tuple[Shot, ...]:
    file = tmp_path / "examples.jsonl"
    file.write_text("".join(line + "\n" for line in lines))
    more = ("eval.prompting=[one_shot,few_shot_bare]", f"eval.shots={shots}", f"eval.examples_file={file}")
    return worked_examples(evaluation(*more, template=template), [], EVALUATED)


def test_a_response_is_shown_as_it_is_and_an_answer_in_the_format_of_the_prompt(tmp_path: Path) -> None:
    lines = ('{"question": "1?", "response": " 1\\n"}', '{"question": "2?", "answer": "1+1=<<1+1=2>>2\\n#### 2"}')
    given, marked = examples_of(tmp_path, *lines, template="qwen_cot")
    assert given == Shot("1?", " 1\n")
    assert marked.response.startswith("1+1=2\n")
    assert "\\boxed{2}" in marked.response


@pytest.mark.parametrize(
    ("lines", "shots", "said"),
    [
        (['{"question": "1?", "response": "1"}'], 2, r"has 1 examples and eval\.prompting needs 2: add lines"),
        ([], 1, r"has 0 examples and eval\.prompting needs 1"),
        (['{"question": "1?"}'], 1, r"examples\.jsonl:1: give either response or answer, not neither"),
        (['{"question": "1?", "response": "1", "answer": "#### 1"}'], 1, "not response and answer"),
        (['{"question": "1?", "answer": "one"}'], 1, r"examples\.jsonl:1: "),
        (['{"question": "1?", "response": 1}'], 1, r"examples\.jsonl:1: response is missing, empty or not a string"),
        (['{"question": "what  is 2 + 2?", "response": "4"}'], 1, r"jsonl:1: the example is the evaluated question 2"),
        (["[]"], 1, r"examples\.jsonl:1: not a JSON object"),
    ],
)
def test_a_bad_file_of_examples_is_refused(tmp_path: Path, lines: list[str], shots: int, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        examples_of(tmp_path, *lines, shots=shots)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "more",
    [
        ("eval.prompting=[zero_shot,zero_shot_bare]",),
        ("eval.suite=generate", "eval.input_path=x", "eval.prompting=[one_shot]"),
    ],
)
def test_examples_that_no_way_shows_are_refused(more: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"examples_file has no effect with eval\.") as error:
        evaluation(*more, f"eval.examples_file={NATALIA}")
    assert "\n" not in str(error.value)
