from __future__ import annotations

import pytest

from grpo_gsm8k.data.problems import read_prepared, read_problems, write_prepared
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.problem import Problem

GOOD = {"question": "One and one?", "answer": "1+1=<<1+1=2>>2\n#### 2"}


def test_a_row_without_an_id_is_named_by_its_index(tmp_path, rows):
    path = rows(tmp_path / "a.jsonl", [GOOD, "", {**GOOD, "id": "mine"}, {**GOOD, "id": 7}, GOOD])
    assert [problem.id for problem in read_problems(path, "train")] == ["train-00000", "mine", "7", "train-00003"]


@pytest.mark.parametrize(
    ("raw", "gold"),
    [("1,080", "1080"), ("-5", "-5"), ("$18.00", "18"), ("0.5", "0.5"), ("70 %", "70"), ("18.", "18")],
)
def test_the_gold_number_is_canonical(tmp_path, rows, raw, gold):
    path = rows(tmp_path / "a.jsonl", [{"question": "?", "answer": f"so #### 3\n#### {raw}"}])
    assert read_problems(path, "x")[0].gold == gold


def test_a_given_gold_number_counts(tmp_path, rows):
    path = rows(tmp_path / "a.jsonl", [{"question": "?", "answer": "no marker", "gold_number": 3.50}])
    assert read_problems(path, "x")[0].gold == "3.5"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not a JSON object"),
        ({"answer": "#### 1"}, "question is missing"),
        ({"question": " \n", "answer": "#### 1"}, "question is missing"),
        ({"question": 5, "answer": "#### 1"}, "question is a number, not text"),
        ({"question": "?"}, "answer is missing"),
        ({"question": "?", "answer": "no number"}, "####"),
        ({"question": "?", "answer": "#### many"}, "is not one number"),
        ({"question": "?", "answer": "#### 1", "gold_number": "x"}, "gold"),
        ({"question": "?", "answer": "#### 1", "id": ""}, "id must be"),
        ({"question": "?", "answer": "#### 1", "id": True}, "id must be"),
        ('{"question": "\\ud800", "answer": "#### 1"}', "surrogate"),
        ({**GOOD, "id": "x-00000"}, "'x-00000' is already used in "),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, rows, bad, reason):
    path = rows(tmp_path / "a.jsonl", [GOOD, "", bad])
    with pytest.raises(UserError) as caught:
        read_problems(path, "x")
    assert str(caught.value).startswith(f"{path}:3: ")
    assert reason in str(caught.value)


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"question": "\xff"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:1: not UTF-8"):
        read_problems(path, "x")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_problems(tmp_path / "absent.jsonl", "x")
    with pytest.raises(UserError, match="cannot be read"):
        read_problems(tmp_path, "x")


def test_the_written_form_is_canonical_and_reads_back(tmp_path):
    problems = [Problem("a", "Kaç elma? \u2028 {x}", "iki\n#### 2", "2"), Problem("b", "?", "#### 3", "3")]
    path = tmp_path / "a.jsonl"
    write_prepared(path, problems)
    data = path.read_bytes()
    assert data.startswith('{"id": "a", "question": "Kaç elma? \u2028 {x}", "answer": "iki\\n#### 2"'.encode())
    assert data.count(b"\n") == 2
    assert read_prepared(path) == problems


def test_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"question": "?", "answer": "#### 1"}\r\n{"question": "!", "answer": "#### 2"}\r\n')
    assert [problem.gold for problem in read_problems(path, "x")] == ["1", "2"]


def test_real_gsm8k_has_a_gold_everywhere(gsm8k):
    problems = read_problems(gsm8k / "train.jsonl", "train")
    assert len(problems) == 7473
    assert problems[17].id == "train-00017"
    assert all("," not in problem.gold for problem in problems)
    assert read_problems(gsm8k / "test_socratic.jsonl", "test")[0].gold == "18"
