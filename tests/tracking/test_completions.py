"""Completions for tables: all rewards and lengths, and rows at the configured updates."""

from __future__ import annotations

from pathlib import Path

import pytest

from grpo_gsm8k.config import CompletionTablesConfig
from grpo_gsm8k.tracking.completions import read_completions
from grpo_gsm8k.tracking.writer_thread import Record
from tests.tracking.parquet_rows import write_completions

TABLES = CompletionTablesConfig(every=10, rows=4)


def test_rows_are_spread_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "step_1.parquet"
    write_completions(file)
    found = read_completions(Record("update", 1, {}, file), TABLES)
    assert found is not None
    assert found.lengths == list(range(1, 41))
    assert found.rewards == [index / 40 for index in range(40)]
    table = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    assert [row["text"] for row in table] == [f"completion {index}" for index in (0, 10, 20, 30)]
    assert [row["tokens"] for row in table] == [1, 11, 21, 31]
    assert table[0] | {"question": "question 0", "reward_correct": 1.0, "advantage": 0.5} == table[0]
    assert "logprobs" not in found.columns


@pytest.mark.parametrize(
    ("record", "every", "rows"),
    [
        (("update", 1), 10, 4),
        (("update", 2), 10, 0),
        (("update", 20), 10, 4),
        (("validation", 3), 10, 4),
        (("update", 1), 0, 0),
        (("validation", 3), 0, 0),
    ],
)
def test_a_table_is_due(tmp_path: Path, record: tuple[str, int], every: int, rows: int) -> None:
    file = tmp_path / "step.parquet"
    write_completions(file)
    found = read_completions(Record(*record, {}, file), CompletionTablesConfig(every=every, rows=4))  # type: ignore[arg-type]
    assert found is not None
    assert (len(found.rows), len(found.lengths)) == (rows, 40)


def test_fewer_completions_than_rows_and_no_extracted_answer(tmp_path: Path) -> None:
    file = tmp_path / "step.parquet"
    write_completions(file, 3, extracted=None)
    found = read_completions(Record("validation", 0, {}, file), TABLES)
    assert found is not None
    assert len(found.rows) == 3


def test_a_missing_file_is_nothing_and_a_damaged_one_an_error(tmp_path: Path) -> None:
    assert read_completions(Record("update", 1, {}, tmp_path / "none.parquet"), TABLES) is None
    assert read_completions(Record("regression", 1, {}), TABLES) is None
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises((OSError, ValueError)):
        read_completions(Record("update", 1, {}, tmp_path / "bad.parquet"), TABLES)
