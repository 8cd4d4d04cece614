"""The same problems from nine kinds of file, and an error with its place for each broken one."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grpo_gsm8k.config import DataConfig
from grpo_gsm8k.data.sources import load_source, notation_of, rules_of
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import AnswerKind, Locale
from grpo_gsm8k.grading.problem import Problem

Make = Callable[..., DataConfig]
ROWS = [
    {"question": 'Ann, "the" first:\n2 + 3?', "answer": "2 + 3 = 5\n#### 5", "level": "easy"},
    {"question": "Kaç elma? 1.000 + 80", "answer": "#### 1,080", "level": "007"},
]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def messages(row: dict[str, Any]) -> dict[str, Any]:
    turns = [("user", row["question"]), ("assistant", row["answer"])]
    return {"messages": [{"role": role, "content": text} for role, text in turns], "level": row["level"]}


def verl(row: dict[str, Any]) -> dict[str, Any]:
    gold = row["answer"].rpartition("#### ")[2]
    return {
        "prompt": [{"role": "user", "content": row["question"]}],
        "reward_model": {"ground_truth": gold, "style": "rule"},
        "extra_info": {"answer": row["answer"], "level": row["level"]},
    }


def other_names(row: dict[str, Any]) -> dict[str, Any]:
    return {"problem": row["question"], "solution": row["answer"], "level": row["level"]}


KINDS: dict[str, tuple[str, Callable[[Path], object], dict[str, Any]]] = {
    "jsonl": ("a.jsonl", lambda p: p.write_bytes(lines(ROWS)), {}),
    "json": ("a.json", lambda p: p.write_text(json.dumps({"data": ROWS})), {"source": "json"}),
    "csv": ("a.csv", lambda p: write_csv(p, ROWS), {"source": "csv"}),
    "parquet": ("a.parquet", lambda p: pq.write_table(pa.Table.from_pylist(ROWS), p), {"source": "parquet"}),
    "gz": ("a.jsonl.gz", lambda p: p.write_bytes(gzip.compress(lines(ROWS))), {}),
    "messages": ("a.jsonl", lambda p: p.write_bytes(lines([messages(row) for row in ROWS])), {}),
    "verl": ("a.jsonl", lambda p: p.write_bytes(lines([verl(row) for row in ROWS])), {}),
    "bom": ("a.jsonl", lambda p: p.write_bytes(b"\xef\xbb\xbf" + lines(ROWS).replace(b"\n", b"\r\n")), {}),
    "names": (
        "a.jsonl",
        lambda p: p.write_bytes(lines([other_names(row) for row in ROWS])),
        {"columns": {"question": "problem", "answer": "solution"}},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_nine_kinds_of_file_give_the_same_problems(tmp_path: Path, data_config: Make, kind: str) -> None:
    name, write, settings = KINDS[kind]
    write(tmp_path / name)
    source = load_source(data_config(train_path=tmp_path / name, test_path=None, test_size=1, locale="en", **settings))
    assert [(p.id, p.question, p.answer, p.gold) for p in source.train] == [
        ("train-00000", ROWS[0]["question"], ROWS[0]["answer"], "5"),
        ("train-00001", ROWS[1]["question"], ROWS[1]["answer"], "1080"),
    ]
    assert [p.extra["level"] for p in source.train] == ["easy", "007"]
    assert source.test is None


def test_a_byte_order_mark_is_not_part_of_a_column(tmp_path: Path, data_config: Make) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfquestion,answer,level\r\nq,#### 1,x\r\n")
    (problem,) = load_source(data_config(source="csv", train_path=path, test_path=None, test_size=1)).train
    assert (problem.question, problem.extra) == ("q", {"level": "x"})


BROKEN: list[tuple[str, str, bytes, str]] = [
    ("jsonl", "a.jsonl", lines(ROWS) + b'{"question": ', r"a\.jsonl:3: not JSON"),
    ("jsonl", "a.jsonl", lines(ROWS) + b'{"question": "?", "answer": "\xff"}\n', r"a\.jsonl:3: not UTF-8"),
    ("jsonl", "a.jsonl", lines([*ROWS, {"q": "?", "answer": "#### 1"}]), r"a\.jsonl:3: question is missing.*answer, q"),
    ("jsonl", "a.jsonl", lines([*ROWS, {"question": None, "answer": "1"}]), r"a\.jsonl:3: question is missing"),
    ("jsonl", "a.jsonl", lines([*ROWS, {"question": ["?"], "answer": "1"}]), r"a\.jsonl:3: question is missing"),
    ("jsonl", "a.jsonl", lines([{"id": 1, **ROWS[0]}] * 2), r"a\.jsonl:2: id '1' is already used in .*a\.jsonl:1"),
    ("jsonl", "a.jsonl", b"", r"a\.jsonl contains no problem"),
    ("jsonl", "a.jsonl.gz", gzip.compress(lines(ROWS))[:-12], r"a\.jsonl\.gz is a damaged gzip file"),
    ("jsonl", "a.jsonl", lines([{"messages": []}]), r"a\.jsonl:1: messages must be a list"),
    ("jsonl", "a.jsonl", lines([{"messages": [{"role": "user", "content": [1]}]}]), r"a\.jsonl:1: messages must be"),
    (
        "jsonl",
        "a.jsonl",
        lines([messages(ROWS[0]) | {"messages": messages(ROWS[0])["messages"] * 2}]),
        "2 user messages",
    ),
    ("jsonl", "a.csv", b"question,answer\n", r"set data\.source=csv"),
    ("json", "a.json", b'[{"question": "?",\n "answer" 1}]', r"a\.json:2: not JSON"),
    ("json", "a.json", b'{"question": "?"}', r"a\.json: not a list of objects.*data\.source=jsonl"),
    ("json", "a.json", b'[{"question": "?", "answer": "#### 1"}, 5]', r"a\.json row 2: not a JSON object"),
    ("csv", "a.csv", b"question,answer\na,#### 1\nb,#### 1,080\n", r"a\.csv:3: 3 cells, but 2 columns"),
    ("csv", "a.csv", b"question,question\na,b\n", r"a\.csv:1: the header"),
    ("csv", "a.csv", b'question,answer\na,#### 1\n"b,#### 1\n', r"a\.csv:\d: not valid CSV"),
    ("csv", "a.csv", b"question,answer\na,#### 1\n\xff,#### 2\n", r"a\.csv:3: not UTF-8"),
    ("csv", "a.csv", b"question,answer\na,\n", r"a\.csv:2: answer is missing"),
    ("parquet", "a.parquet", b"PAR1 is not enough", r"a\.parquet is not a readable Parquet file"),
]


@pytest.mark.parametrize(("source", "name", "content", "message"), BROKEN)
def test_a_broken_file_is_named_with_its_place(
    tmp_path: Path, data_config: Make, source: str, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_source(data_config(source=source, train_path=tmp_path / name, test_path=None, test_size=1))
    assert "\n" not in str(caught.value)


def test_a_parquet_cell_without_a_json_form_is_named(tmp_path: Path, data_config: Make) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"question": ["?"], "answer": ["#### 1"], "image": [b"\x00"]}), path)
    with pytest.raises(UserError, match=r"a\.parquet row 1, column image: a value of type bytes"):
        load_source(data_config(source="parquet", train_path=path, test_path=None, test_size=1))


def test_a_named_column_that_is_missing_lists_those_there_are(tmp_path: Path, rows: Any, data_config: Make) -> None:
    path = rows(tmp_path / "a.jsonl", [{"frage": "?", "answer": "#### 1"}])
    config = data_config(train_path=path, test_path=None, test_size=1, columns={"question": "problem"})
    with pytest.raises(
        UserError, match=r"no column 'problem', which data\.columns\.question names; columns: frage, answer"
    ):
        load_source(config)


def test_gold_from_a_column_without_a_marker(tmp_path: Path, rows: Any, data_config: Make) -> None:
    path = rows(
        tmp_path / "a.jsonl", [{"Body": "Ann has 2. ", "Question": "How many?", "Answer": "1.234,5", "ID": "x"}]
    )
    columns = {"question": ["Body", "Question"], "gold": "Answer", "id": "ID"}
    config = data_config(train_path=path, test_path=None, test_size=1, columns=columns, locale="tr")
    (problem,) = load_source(config, rules_of(config, notation_of(config, Locale.EN), AnswerKind.NUMBER)).train
    assert problem == Problem("x", "Ann has 2. How many?", "1.234,5", "1234.5", {})


def test_bad_rows_are_dropped_and_counted_if_wanted(tmp_path: Path, rows: Any, data_config: Make) -> None:
    items = [
        *ROWS,
        {"question": "?", "answer": "none"},
        {"question": "", "answer": "#### 1"},
        ROWS[0],
        {**ROWS[0], "level": "hard"},
    ]
    path = rows(tmp_path / "a.jsonl", items)
    config = data_config(
        train_path=path, test_path=None, test_size=1, locale="en", invalid="drop", where={"level": ["easy", "007"]}
    )
    with pytest.raises(UserError, match="no column 'level'"):
        load_source(config)
    found = load_source(config.model_copy(update={"where": {}}))
    assert [problem.gold for problem in found.train] == ["5", "1080"]
    assert sum(found.dropped.values()) == 4
    assert found.dropped["repeated question"] == 2
