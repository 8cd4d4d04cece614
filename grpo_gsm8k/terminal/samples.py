"""Sampled completions for the display, from the Parquet file of an update or a validation."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("question", "gold", "text", "extracted", "reward")


@dataclass(frozen=True, slots=True)
class ShownSample:
    """One completion of the update, or answer of the validation, of `version`."""

    of: str  # "update" or "validation"
    version: int
    question: str
    gold: str
    text: str
    extracted: str
    reward: float


def read_samples(path: Path, of: str, version: int, count: int) -> tuple[ShownSample, ...]:
    """Draw `count` completions of a file at random, the same ones each time; none if it cannot be read.

    A display does not end a run, so a missing or damaged file is ignored.
    """
    if count == 0:
        return ()
    import pyarrow as pa  # lazy: 0.5 s, and only a display with samples needs it
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(COLUMNS))
    except (OSError, pa.ArrowException):
        return ()
    chosen = random.Random(version).sample(range(table.num_rows), min(count, table.num_rows))
    return tuple(_sample(row, of, version) for row in table.take(pa.array(chosen, pa.int64())).to_pylist())


def _sample(row: dict[str, Any], of: str, version: int) -> ShownSample:
    texts = {name: "" if row[name] is None else str(row[name]) for name in COLUMNS if name != "reward"}
    return ShownSample(of, version, reward=float(row["reward"]), **texts)
