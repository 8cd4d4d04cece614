"""What became of validation items, and the unchanged items of a pair."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grpo_gsm8k.report import collect, items
from grpo_gsm8k.report.item_histories import ItemHistory, item_histories
from tests.report import recorded
from tests.report import runs as made


@pytest.mark.parametrize(
    ("verdicts", "outcome", "changes"),
    [
        ("101", "stayed right", 2),
        ("000", "stayed wrong", 0),
        ("-01", "became right", 1),
        ("10-", "became wrong", 1),
        ("--1", "stayed right", 0),
    ],
)
def test_the_outcome_compares_first_and_last(verdicts: str, outcome: str, changes: int) -> None:
    item = ItemHistory(("a", "?"), verdicts)
    assert (item.outcome, item.changes) == (outcome, changes)


def test_histories_are_those_of_the_files(tmp_path: Path) -> None:
    folder = made.training(tmp_path / "runs", "one", updates=4)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(made.validation(2, 0.5)) + "\n")
    right = {0: "ab", 2: "ac", 4: "acd"}
    for version, names in right.items():
        rows = [recorded.row(name, name in names) for name in "abcde"]
        pq.write_table(pa.Table.from_pylist(rows), folder / "validation" / f"step_{version}.parquet")
    (found,) = item_histories([collect.read_run(folder, "one")])
    assert found.versions == (0, 2, 4)
    assert [(item.key[0], item.verdicts) for item in found.items] == [
        *(("a", "111"), ("c", "011"), ("d", "001"), ("b", "100"), ("e", "000"))
    ]
    assert found.words == (
        "From the first validation to the last, of 5 items: 1 stayed right, 2 became right, 1 became wrong, "
        "1 stayed wrong",
        "0 changed more than once; 1 were never right",
    )
    assert found.page_data()["outcomes"] == [
        *(["stayed right", 1], ["became right", 2], ["became wrong", 1], ["stayed wrong", 1])
    ]
    (few,) = item_histories([collect.read_run(folder, "one")], most=2)
    assert [item.key[0] for item in few.items] == ["a", "e"]
    assert few.caption == "2 of 5 items, 3 of 3 validations"


def test_items_that_stayed_are_listed_after_the_changed_ones(tmp_path: Path) -> None:
    pairs = collect.collect([made.training(tmp_path / "runs", "one")], None).pairs
    (change,) = items.changed_items(pairs)
    assert [item.change for item in change.unchanged].count("stayed right") == 5
    assert [item.change for item in change.unchanged].count("stayed wrong") == 10
    assert {item.change for item in change.items} == {"fixed"}
    assert change.words.startswith("5 fixed, 0 broken, 5 stayed right, 10 stayed wrong. Overall ")
    assert all((item.failed == "correct") == (item.change == "stayed right") for item in change.unchanged)
    (small,) = items.changed_items(pairs, most=9_000)
    assert len(small.items) == 5
    assert len(small.unchanged) + small.unchanged_left_out == 15
    assert 0 < len(small.unchanged) < 15
