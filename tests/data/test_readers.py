"""The same problems from nine kinds of file, and an error with its place for each broken one."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grpo_gsm8k.config import DataConfig
from grpo_gsm8k.data.problems import RowRules, problems_of, write_prepared
from grpo_gsm8k.data.readers import FileKind, read_rows
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
    "gz": ("a.jsonl.gz", lambda p: p.write_bytes(gzip.compress(lines(ROWS), mtime=0)), {}),
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


def as_json(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, ensure_ascii=False).encode()


def as_csv(rows: list[dict[str, Any]], newline: str = "\n") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), lineterminator=newline)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue().to_pybytes())


BOM = b"\xef\xbb\xbf"
CHATS = [messages(row) for row in ROWS]
SAME: dict[str, tuple[str, str, bytes]] = {
    "csv with Windows line ends": ("csv", "a.csv", as_csv(ROWS, "\r\n")),
    "csv, gzip": ("csv", "a.csv.gz", gzip.compress(as_csv(ROWS), mtime=0)),
    "json, gzip": ("json", "a.json.gz", gzip.compress(as_json(ROWS), mtime=0)),
    "parquet, gzip": ("parquet", "a.parquet.gz", gzip.compress(as_parquet(ROWS), mtime=0)),
    "gzip without its suffix": ("jsonl", "a.jsonl", gzip.compress(lines(ROWS), mtime=0)),
    "messages in Parquet": ("parquet", "a.parquet", as_parquet(CHATS)),
    "verl in Parquet": ("parquet", "a.parquet", as_parquet([verl(row) for row in ROWS])),
    "csv with a mark": ("csv", "a.csv", BOM + as_csv(ROWS)),
    "json with a mark": ("json", "a.json", BOM + as_json(ROWS)),
    "joined files with marks": ("jsonl", "a.jsonl", BOM + lines(ROWS[:1]) + BOM + lines(ROWS[1:]) + BOM),
    "no suffix": ("csv", "data", as_csv(ROWS)),
    "JSON lines called json": ("jsonl", "a.json", lines(ROWS)),
    "ndjson": ("jsonl", "a.ndjson", lines(ROWS)),
}


@pytest.mark.parametrize("kind", SAME)
def test_more_kinds_of_file_give_the_same_problems(tmp_path: Path, data_config: Make, kind: str) -> None:
    source, name, content = SAME[kind]
    (tmp_path / name).write_bytes(content)
    config = data_config(source=source, train_path=tmp_path / name, test_path=None, test_size=1, locale="en")
    found = load_source(config).train
    assert [(p.question, p.gold, p.extra["level"]) for p in found] == [
        (ROWS[0]["question"], "5", "easy"),
        (ROWS[1]["question"], "1080", "007"),
    ]


def test_a_byte_order_mark_is_not_part_of_a_column(tmp_path: Path, data_config: Make) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfquestion,answer,level\r\nq,#### 1,x\r\n")
    (problem,) = load_source(data_config(source="csv", train_path=path, test_path=None, test_size=1)).train
    assert (problem.question, problem.extra) == ("q", {"level": "x"})


GOOD = b'{"question": "?", "answer": "#### 1"}\n'
NOT_UTF8 = as_parquet([{"question": "a", "gold": 1}, {"question": "\u0080marker", "gold": 2}]).replace(
    "\u0080marker".encode(), b"\xff\xffmarker"
)


def table_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


TWICE = table_bytes(pa.Table.from_arrays([pa.array(["?"]), pa.array(["!"])], names=["question", "question"]))
NANOSECONDS = pa.table({"question": ["?"], "gold": [1], "time": pa.array([1], pa.time64("ns"))})
SPLIT_NAME = [{"a\nb\x1b[31m": "?", "c": 1}]
BROKEN: list[tuple[str, str, bytes, str]] = [
    # JSON lines
    ("jsonl", "a.jsonl", lines(ROWS) + b'{"question": ', r"a\.jsonl:3: not JSON"),
    ("jsonl", "a.jsonl", lines(ROWS) + b'{"question": "?", "answer": "\xff"}\n', r"a\.jsonl:3: not UTF-8"),
    ("jsonl", "a.jsonl", GOOD + b"[1]\n", r"a\.jsonl:2: not a JSON object; write one object per line"),
    ("jsonl", "a.jsonl", GOOD + b'{"question": "?", "question": "!"}', r"a\.jsonl:2: .*key 'question' occurs twice"),
    ("jsonl", "a.jsonl", GOOD + b'{"question": "?", "gold": NaN}', r"a\.jsonl:2: not JSON: NaN is not a JSON number"),
    ("jsonl", "a.jsonl", GOOD + b'{"question": "?", "gold": -Infinity}', r"a\.jsonl:2: not JSON: -Infinity"),
    ("jsonl", "a.jsonl", GOOD + b'{"question": "?", "gold": 1e999}', r"a\.jsonl:2: gold '1E\+999' is not one number"),
    ("jsonl", "a.jsonl", GOOD + b'{"question": "?", "gold": 1, "x": 1e-99999999999999999999}', r"a\.jsonl:2: .* range"),
    ("jsonl", "a.jsonl", GOOD + b'{"question": "?", "gold": ' + b"9" * 5000 + b"}", r"a\.jsonl:2: not JSON: .*digits"),
    ("jsonl", "a.jsonl", GOOD + b"[" * 99999, r"a\.jsonl:2: not JSON: .*recursion"),
    ("jsonl", "a.jsonl", lines(ROWS).decode().encode("utf-16"), r"a\.jsonl: the file is UTF-16, not UTF-8; save"),
    ("jsonl", "a.jsonl", lines(ROWS).decode().encode("utf-16-le"), r"a\.jsonl:1: not UTF-8 text; save"),
    ("jsonl", "a.jsonl", b"", r"data\.train_path: .*a\.jsonl contains no problem"),
    ("jsonl", "a.csv", b"question,answer\n", r"set data\.source=csv"),
    # JSON
    ("json", "a.json", b'[{"question": "?",\n "answer" 1}]', r"a\.json:2: not JSON: .*column 11"),
    ("json", "a.json", b'[{"question": "a"},\n', r"a\.json:2: not JSON"),
    ("json", "a.json", GOOD * 2, r"a\.json:2: not JSON: Extra data .*for one object per line, set data\.source=jsonl"),
    ("json", "a.json", b'{"question": "?"}', r"a\.json: not a list of objects.*keys: question\).*data\.source=jsonl"),
    ("json", "a.json", b'{"question": [], "answer": []}', r"a\.json: not a list of objects.*keys: question, answer"),
    ("json", "a.json", b'"a"', r"a\.json: not a list of objects"),
    ("json", "a.json", b'[{"question": "?", "answer": "#### 1"}, 5]', r"a\.json row 2: not a JSON object"),
    ("json", "a.json", b'[{"question": ["a"], "answer": "#### 1"}]', r"a\.json row 1: question is a list, not text"),
    ("json", "a.json", b'[{"question": 1, "question": 2}]', r"a\.json: not JSON: the key 'question' occurs twice"),
    ("json", "a.json", b" \n", r"data\.train_path: .*a\.json contains no problem"),
    ("json", "a.json", b"[]", r"data\.train_path: .*a\.json contains no problem"),
    # CSV
    ("csv", "a.csv", b"question,answer\na,#### 1\nb,#### 1,080\n", r"a\.csv:3: 3 cells, but 2 columns \(question, ans"),
    ("csv", "a.csv", b"question,answer\na,#### 1\nb\n", r"a\.csv:3: 1 cells, but 2 columns"),
    ("csv", "a.csv", b"question,question\na,b\n", r"a\.csv:1: the column 'question' occurs twice"),
    ("csv", "a.csv", b",question\n1,a\n", r"a\.csv:1: the header has a column without a name"),
    ("csv", "a.csv", b"question;answer\na;b\n", r"a\.csv:1: .*separate columns by commas"),
    ("csv", "a.csv", b'question,answer\na,#### 1\n"b,#### 1\n', r"a\.csv:3: not valid CSV \(unexpected end of data\)"),
    ("csv", "a.csv", b"question,answer\na,#### 1\n\xff,#### 2\n", r"a\.csv:3: not UTF-8"),
    ("csv", "a.csv", b"question,answer\na,\n", r"a\.csv:2: answer is missing or empty"),
    ("csv", "a.csv", b'question,answer\r\n"a\r\nb",#### 1\r\n\r\nc,none\r\n', r"a\.csv:5: no '####' in the answer"),
    ("csv", "a.csv", b"id,question,gold\n1,a,1\n1,b,2\n", r"a\.csv:3: id '1' is already used in .*a\.csv:2"),
    ("csv", "a.csv", b"question,gold\na,many\n", r"a\.csv:2: gold 'many' is not one number"),
    ("csv", "a.csv", as_csv(ROWS).decode().encode("utf-16"), r"a\.csv: the file is UTF-16"),
    ("csv", "a.csv", b"question,gold\na\x00,1\n", r"a\.csv:2: not UTF-8 text"),
    ("csv", "a.csv", as_csv(SPLIT_NAME), r"columns: a b\\x1b\[31m, c"),
    ("csv", "a.csv", b'"a\nb",c\n1\n', r"a\.csv:3: 1 cells, but 2 columns \(a b, c\)"),
    ("csv", "a.csv", as_csv([{f"column {i}": 1 for i in range(99)}]), r"column 11 and 87 more; set \+data\.columns"),
    ("csv", "a.csv", b"question,answer\n", r"data\.train_path: .*a\.csv contains no problem"),
    ("csv", "a.csv", b"", r"data\.train_path: .*a\.csv contains no problem"),
    # Parquet
    ("parquet", "a.parquet", b"PAR1 is not enough", r"a\.parquet is not a readable Parquet file"),
    ("parquet", "a.parquet", as_parquet(ROWS)[:-20], r"a\.parquet is not a readable Parquet file"),
    ("parquet", "a.parquet", b"", r"data\.train_path: .*a\.parquet contains no problem"),
    ("parquet", "a.parquet", NOT_UTF8, r"a\.parquet row 2, column question: not UTF-8; write the file again"),
    ("parquet", "a.parquet", table_bytes(NANOSECONDS), r"a\.parquet: the column 'time' has times in nanoseconds"),
    ("parquet", "a.parquet", TWICE, r"a\.parquet: the column 'question' occurs twice"),
    ("parquet", "a.parquet", as_parquet([{**ROWS[0], "b": b"x"}]), r"row 1: column b holds a value of type bytes"),
    ("parquet", "a.parquet", as_parquet([{**ROWS[0], "x": float("inf")}]), r"row 1: column x holds an infinite num"),
    ("parquet", "a.parquet", as_parquet([*ROWS, {"question": "!", "answer": None}]), r"row 3: answer is missing or em"),
    ("parquet", "a.parquet", as_parquet([other_names(ROWS[0])]), r"row 1: question is missing; columns: problem, sol"),
    ("parquet", "a.parquet", as_parquet(SPLIT_NAME), r"columns: a b\\x1b\[31m, c"),
    # gzip
    ("jsonl", "a.jsonl.gz", gzip.compress(lines(ROWS), mtime=0)[:-12], r"a\.jsonl\.gz is a damaged gzip file"),
    ("jsonl", "a.jsonl.gz", gzip.compress(GOOD * 99, mtime=0)[:-30] + b"\xff" * 30, r"\.gz is a damaged gzip file"),
    ("jsonl", "a.jsonl.gz", GOOD, r"a\.jsonl\.gz is not gzip: remove \.gz from its name"),
    ("csv", "a.csv.gz", gzip.compress(b"", mtime=0), r"data\.train_path: .*contains no problem"),
    ("json", "a.jsonl.gz", gzip.compress(GOOD, mtime=0), r"gz is read as json, but its name ends in jsonl: set"),
    ("csv", "a.csv.zip", as_csv(ROWS), r"a\.csv\.zip is compressed, and only gzip is read"),
]


@pytest.mark.parametrize(("source", "name", "content", "message"), BROKEN)
def test_a_broken_file_is_named_with_its_place(
    tmp_path: Path, data_config: Make, source: str, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_source(data_config(source=source, train_path=tmp_path / name, test_path=None, test_size=1))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("source", ["jsonl", "json", "csv", "parquet"])
def test_a_folder_and_an_absent_file(tmp_path: Path, data_config: Make, source: str) -> None:
    for name, reason in (("", "Is a directory"), ("absent", "No such file")):
        config = data_config(source=source, train_path=tmp_path / name, test_path=None, test_size=1)
        with pytest.raises(UserError, match=f"cannot be read: {reason}"):
            load_source(config)


def one(tmp_path: Path, data_config: Make, source: str, content: bytes, **settings: Any) -> Problem:
    path = tmp_path / f"a.{source}"
    path.write_bytes(content)
    (problem,) = load_source(data_config(source=source, train_path=path, test_path=None, test_size=1, **settings)).train
    return problem


def test_csv_keeps_texts(tmp_path: Path, data_config: Make) -> None:
    long = "x" * 200_000  # longer than the limit of Python's csv module
    content = f'id,question,gold,code,note,solution\n007,"{long}","1,080",0012,,a\n'.encode()
    problem = one(tmp_path, data_config, "csv", content)
    extra = {"code": "0012", "note": None, "solution": "a"}
    assert problem == Problem("007", long, "1080", "1080", extra)  # without an answer, the gold answer is all there is


def test_values_of_parquet_are_exact(tmp_path: Path, data_config: Make) -> None:
    day = datetime.date(2026, 11, 25)
    row = {
        "question": "?",
        "gold": Decimal("1234567890123456.75"),
        "when": day,
        "none": None,
        "n": 3,
        "ok": True,
        "at": datetime.datetime(2026, 1, 2, 3),
        "price": Decimal("2.50"),
        "nan": float("nan"),
        "deep": [{"a": [1.5], "b": day}],
    }
    problem = one(tmp_path, data_config, "parquet", as_parquet([row]))
    assert problem.gold == "1234567890123456.75"
    assert problem.extra == {
        "when": "2026-11-25",
        "none": None,
        "n": 3,
        "ok": True,
        "at": "2026-01-02T03:00:00",
        "price": "2.50",
        "nan": None,
        "deep": [{"a": [1.5], "b": "2026-11-25"}],
    }
    turkish = {"question": "?", "gold": Decimal("1.234")}  # no text in Turkish notation, in which it would be 1234
    assert one(tmp_path, data_config, "parquet", as_parquet([turkish]), locale="tr").gold == "1.234"


def test_long_decimals_of_json_stay_exact(tmp_path: Path, data_config: Make) -> None:
    content = b'[{"question": "?", "gold": 1234567890123456.789, "x": 0.1234567890123456789, "y": 0.1, "z": 1e16}]'
    problem = one(tmp_path, data_config, "json", content)
    assert problem.gold == "1234567890123456.789"
    assert problem.extra == {"x": "0.1234567890123456789", "y": 0.1, "z": 1e16}


def test_damaged_files_are_read_or_refused_with_one_line(tmp_path: Path) -> None:
    """Random damage gives problems or one line, and never another exception."""
    rng = random.Random(1)
    bases: list[tuple[FileKind, bytes]] = [
        *(("jsonl", lines(ROWS)), ("json", as_json(ROWS)), ("csv", as_csv(ROWS)), ("parquet", as_parquet(ROWS))),
        *(("jsonl", lines(CHATS)), ("parquet", as_parquet([verl(row) for row in ROWS]))),
        *(("jsonl", gzip.compress(lines(ROWS), mtime=0)), ("csv", gzip.compress(as_csv(ROWS), mtime=0))),
    ]
    inserted = (b'"', b",", b"{", b"\n", b"\r", b"\x00", b"null", b"[", b"1e999", b"\\ud800", b"NaN", BOM, b"\x1b")
    found: list[str] = []
    for _ in range(250):
        kind, content = rng.choice(bases)
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 5])):
            at = rng.randrange(len(damaged) + 1)
            change = rng.randrange(3)
            if change == 0:
                damaged[at : at + 1] = bytes([rng.randrange(256)])
            elif change == 1:
                del damaged[at : at + rng.randrange(1, 30)]
            else:
                damaged[at:at] = rng.choice(inserted)
        path = tmp_path / f"a.{kind}"
        path.write_bytes(damaged)
        rules = RowRules(kind=rng.choice(list(AnswerKind)), drop=rng.random() < 0.5)
        try:
            write_prepared(tmp_path / "out.jsonl", problems_of(read_rows(path, kind), "x", rules).problems)
            found.append("")
        except UserError as error:
            found.append(str(error))
    assert all(text == "" or text.isprintable() for text in found)
    assert 20 < found.count("") < 230


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
    assert problem == Problem("x", "Ann has 2. How many?", "1234.5", "1234.5", {})


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
