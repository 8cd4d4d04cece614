"""Batch inference: input lines, and complete runs with the real engine, including killed ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.evaluation.generate import read_lines
from grpo_gsm8k.tiny.sums import QUESTION, Sum
from grpo_gsm8k.tiny.tokenizer import build_tokenizer
from tests.conftest import Cli, read_jsonl

GENERATE = ("command=eval", "preset=cpu_demo", "eval.suite=generate", "actor.max_num_seqs=8", "eval.max_new_tokens=32")
SAMPLED = (*GENERATE, "eval.temperatures=[0.7]", "eval.samples=4")
LINES = 60


def problem(index: int) -> Sum:
    return Sum((index % 10, index // 10, 7 * index % 10), ("+", "-"))


def row(index: int) -> dict[str, Any]:
    """Ids of both types in random order; every third line is a raw prompt, the others are questions."""
    number = (index * 37) % LINES
    name: int | str = number if index % 2 else f"line {number}"
    if index % 3 == 0:
        return {"id": name, "prompt": problem(index).prompt}
    return {"id": name, "question": QUESTION.format(expression=problem(index).expression)}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("generate") / "artifacts")


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("input") / "questions.jsonl", [row(index) for index in range(LINES)])


@pytest.fixture(scope="module")
def whole(lab: Cli, questions: Path) -> Path:
    done = lab.run(*SAMPLED, f"eval.input_path={questions}")
    assert done.returncode == 0, done.stderr
    assert f"{4 * LINES} completions of {LINES} lines" in done.stdout
    return lab.runs()[-1]


@pytest.mark.slow
def test_the_same_ids_in_the_same_order(whole: Path) -> None:
    lines = read_jsonl(whole / "generations.jsonl")
    assert [line["id"] for line in lines] == [row(index)["id"] for index in range(LINES)]
    tokenizer = build_tokenizer()
    for line in lines:
        assert line["error"] is None
        completions: Any = line["completions"]
        assert len(completions) == 4
        for made in completions:
            assert made["finish_reason"] in ("stop", "length")
            assert (made["tokens"] == 32) or made["finish_reason"] == "stop"
            written = len(tokenizer.encode(made["text"], add_special_tokens=False))
            assert written + (made["finish_reason"] == "stop") == made["tokens"]
            marked = made["text"].rpartition("#### ")
            assert made["extracted"] == (marked[2].partition("\n")[0].strip() if marked[1] else None)
    answered = [made["number"] for line in lines for made in json.loads(json.dumps(line["completions"]))]
    right = sum(number == str(problem(at // 4).answer) for at, number in enumerate(answered))
    assert right > LINES  # of 4 * LINES: the model can add, given its usual prompt
    summary = json.loads((whole / "summary.json").read_text())
    assert (summary["lines"], summary["failed"], summary["completions"]) == (LINES, 0, 4 * LINES)


@pytest.mark.slow
def test_prompts_are_taken_as_they_are_and_questions_are_filled_in(whole: Path) -> None:
    prompts = [str(line["prompt"]) for line in read_jsonl(whole / "prompts.jsonl")]
    start = len(prompts[0]) - len(str(row(0)["prompt"]))
    for index, prompt in enumerate(prompts):
        assert prompt[start:] == problem(index).prompt


@pytest.mark.slow
def test_killed_and_resumed_loses_and_repeats_nothing(lab: Cli, questions: Path, whole: Path) -> None:
    before = lab.runs()
    process = lab.start(*SAMPLED, f"eval.input_path={questions}")
    while not (new := [run for run in lab.runs() if run not in before]) or not written(new[0]):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (run,) = new
    left = written(run)
    assert 0 < len(left) < LINES  # the fault fired in the middle
    assert not (run / "summary.json").exists()
    with (run / "generations.jsonl").open("a") as file:
        file.write('{"id": "torn')  # as after a kill during a write

    done = lab.run(*SAMPLED, f"eval.input_path={questions}", "eval.resume_from=latest")
    assert done.returncode == 0, done.stderr
    assert f"{len(left)} of {LINES} lines are already finished" in done.stdout
    assert [r for r in lab.runs() if r not in before] == [run]
    again, once = read_jsonl(run / "generations.jsonl"), read_jsonl(whole / "generations.jsonl")
    assert [line["id"] for line in again] == [line["id"] for line in once]
    assert all(line in again for line in left)

    finished = (run / "generations.jsonl").read_bytes()
    done = lab.run(*SAMPLED, f"eval.input_path={questions}", f"eval.resume_from={run}", "eval.num_shards=2")
    assert done.returncode == 0, done.stderr
    assert (run / "generations.jsonl").read_bytes() == finished
    refused(lab, f"eval.input_path={questions}", f"eval.resume_from={run}", "eval.samples=2", needle="eval.samples=2")
    other = write(questions.with_name("other.jsonl"), [row(index) for index in range(LINES)])
    refused(lab, f"eval.input_path={other}", f"eval.resume_from={run}", needle="eval.input_path")
    changed = write(questions, [{**row(0), "prompt": "1 + 1 ="}, *(row(index) for index in range(1, LINES))])
    try:
        refused(lab, f"eval.input_path={changed}", f"eval.resume_from={run}", needle="restore the file")
    finally:
        write(questions, [row(index) for index in range(LINES)])
    assert (run / "generations.jsonl").read_bytes() == finished


def written(run: Path) -> list[dict[str, object]]:
    """Return the complete lines so far."""
    path = run / "generations.jsonl"
    whole_lines = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
    return [json.loads(line) for line in whole_lines]


def refused(lab: Cli, *overrides: str, needle: str) -> subprocess.CompletedProcess[str]:
    before = lab.runs()
    done = lab.run(*SAMPLED, *overrides)
    assert done.returncode == 2, done.stderr
    assert needle in done.stderr.strip().splitlines()[-1]
    assert lab.runs() == before
    return done


@pytest.mark.slow
def test_bad_input_is_refused_before_anything_is_generated(lab: Cli, tmp_path: Path) -> None:
    long = write(tmp_path / "long.jsonl", [row(0), {"id": "long", "question": "1 + 1 " * 50}])
    refused(lab, f"eval.input_path={long}", needle=f"{long}:2: the prompt has")
    refused(lab, needle="eval.input_path=FILE")
    refused(lab, f"eval.input_path={long}", "eval.temperatures=[0,1]", needle="takes one")
    refused(lab, f"eval.input_path={long}", "eval.model_path=[embedded:tiny,x]", needle="takes one model")
    refused(lab, f"eval.input_path={tmp_path}/none.jsonl", needle="cannot be read")


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        (
            '{"id": 1, "question": "a"}\n{"id": 1, "question": "b"}',
            ":2: id 1 is already used in line 1: give each line its own",
        ),
        ('{"id": "a", "question": "a"}\n\n{"id": "a", "prompt": "b"}', ":3: id 'a' is already used in line 1"),
        ('{"id": 1, "question": "a"}\n{"id": 2, "question"', ":2: not JSON: "),
        ("[1]", ":1: not a JSON object; write one object per line"),
        ('{"question": "a"}', ':1: give each line an id, a string or an integer, such as "id": "q1"'),
        ('{"id": true, "question": "a"}', ":1: give each line an id"),
        ('{"id": 1.5, "question": "a"}', ":1: give each line an id"),
        ('{"id": " ", "question": "a"}', ":1: give each line an id"),
        ('{"id": 1}', ":1: give either question or prompt, not neither"),
        (
            '{"id": 1, "question": "a", "prompt": "b"}',
            ":1: give either question or prompt, not prompt and question",
        ),
        ('{"id": 1, "prompt": " "}', ":1: prompt is missing, empty or not a string"),
        ('{"id": 1, "question": 5}', ":1: question is missing, empty or not a string"),
        ("\n \n", " is empty: write lines"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, needle: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_lines(path)
    assert str(caught.value).startswith(f"{path}{needle}")
    assert "\n" not in str(caught.value)


def test_good_lines_keep_their_ids(tmp_path: Path) -> None:
    path = write(
        tmp_path / "in.jsonl", [{"id": 1, "question": "a"}, {"id": "1", "prompt": " b\n"}, {"id": 0, "question": "c"}]
    )
    assert [(line.id, line.text, line.raw) for line in read_lines(path)] == [
        (1, "a", False),
        ("1", " b\n", True),
        (0, "c", False),
    ]
