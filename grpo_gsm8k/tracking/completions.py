"""Completions of an update or a validation, read from the Parquet file that the learner wrote, for tables elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grpo_gsm8k.config import CompletionTablesConfig
    from grpo_gsm8k.tracking.writer_thread import Record

# The question comes first, then what was made of it; parts of the reward follow the reward.
COLUMNS = ("question", "gold", "text", "extracted", "kind", "reward", "advantage", "finish_reason", "version_min")
TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Completions:
    """Rewards and lengths of all completions of a record, and some of them as rows of a table."""

    rewards: list[float]
    lengths: list[int]
    columns: list[str]
    rows: list[list[Any]]


def read_completions(record: Record, tables: CompletionTablesConfig) -> Completions | None:
    """Return the record's completions; None without a file. Rows are spread evenly over the file.

    Raises OSError or ValueError for a file that cannot be read.
    """
    path = record.completions
    if path is None or not path.is_file():
        return None
    import pyarrow as pa  # lazy: only runs with a writer need it
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    names = pq.read_schema(path).names
    parts = [name for name in names if name.startswith("reward_")]
    shown = [name for name in (*COLUMNS, *parts) if name in names]
    table = pq.read_table(path, columns=[*shown, TOKENS])
    lengths = pc.list_value_length(table[TOKENS]).to_pylist()
    count = min(tables.rows, table.num_rows) if _due(record, tables) else 0
    chosen = [index * table.num_rows // count for index in range(count)]
    picked = table.select(shown).take(pa.array(chosen, pa.int64())).to_pylist()
    rows = [[*row.values(), lengths[index]] for index, row in zip(chosen, picked, strict=True)]
    return Completions(table["reward"].to_pylist(), lengths, [*shown, TOKENS], rows)


def _due(record: Record, tables: CompletionTablesConfig) -> bool:
    """Whether the record gets a table: each validation, the first update, and every `every` updates."""
    if tables.every == 0:
        return False
    return record.kind == "validation" or record.updates == 1 or record.updates % tables.every == 0
