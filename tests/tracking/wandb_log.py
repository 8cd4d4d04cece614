"""Reader of an offline W&B run: a log of protobuf records in blocks, as LevelDB writes them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, 7
FULL, LAST = 1, 4


def wandb_records(path: Path) -> Iterator[Any]:
    """Yield the records of a `.wandb` file."""
    data, at, parts = path.read_bytes(), HEADER, b""  # the file starts with a header of the same size
    while at + HEADER <= len(data):
        if (left := BLOCK - at % BLOCK) < HEADER:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + HEADER])
        parts += data[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (FULL, LAST):
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def items(update: Any) -> dict[str, str]:
    """Return the JSON values of a record's items by their dotted keys."""
    return {item.key or ".".join(item.nested_key): item.value_json for item in update}
