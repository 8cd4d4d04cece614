"""Training completions of a run, read from its `rollouts/step_<N>.parquet`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from grpo_gsm8k.grading.problem import with_current_names
from grpo_gsm8k.tracking.run_folder import RunFolder

ROLLOUTS = re.compile(r"step_([1-9]\d*)\.parquet")


def rollout_files(folder: Path) -> dict[int, Path]:
    """Return the files of a run by update, in ascending order."""
    rollouts = RunFolder(folder).rollouts
    found = ((ROLLOUTS.fullmatch(path.name), path) for path in rollouts.iterdir()) if rollouts.is_dir() else ()
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table | None:
    """Return these columns, by default all, under their present names.

    None if one is missing, or if the file is unreadable or gone.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = {name: next(iter(with_current_names({name: 0}))) for name in file.schema_arrow.names}
            if columns is not None and not set(columns) <= set(names.values()):
                return None
            wanted = [name for name, current in names.items() if columns is None or current in columns]
            table = file.read(columns=wanted)
    except (OSError, pa.ArrowException):
        return None
    return table.rename_columns([names[name] for name in wanted])


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows as dictionaries."""
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
