"""Rows of data files: JSON lines, JSON, CSV and Parquet, each also compressed with gzip.

Every value arrives as a JSON value, and CSV cells as text: "007" and "1,080" keep their form. Errors name the line.
"""

from __future__ import annotations

import codecs
import csv
import datetime
import gzip
import io
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

FileKind = Literal["jsonl", "json", "csv", "parquet"]
FILE_KINDS: tuple[str, ...] = get_args(FileKind)
_GZIP = b"\x1f\x8b"


class Row(NamedTuple):
    """One row; `where` is its file and line, or file and row number, for messages."""

    where: str
    values: dict[str, Any]


def read_rows(path: Path, kind: FileKind) -> list[Row]:
    """Read all rows of a file. Raises UserError with file and line, row or column."""
    suffix = file_kind(path, kind)
    if suffix != kind:
        raise UserError(f"{path} is read as {kind}, but its name ends in {suffix}: set data.source={suffix}")
    return list(_READERS[kind](path, _content(path)))


def file_kind(path: Path, default: FileKind = "jsonl") -> FileKind:
    """Return the kind that the name of a file tells, without a final `.gz`; `default` for other names."""
    name = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    found: FileKind = name if name in FILE_KINDS else default  # type: ignore[assignment]
    return found


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield line number and value of every non-empty line. Raises UserError with file and line."""
    yield from _numbered(path, _content(path))


def json_value(value: Any, where: str) -> Any:
    """Return a value of a table as a JSON value: dates as text, exact decimals as text, NaN as null.

    Raises UserError that starts with `where` for bytes and other values without such a form.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return str(value)
        case datetime.date() | datetime.time():
            return value.isoformat()
        case Mapping():
            return {str(key): json_value(inner, where) for key, inner in value.items()}
        case list() | tuple():
            return [json_value(inner, where) for inner in value]
    raise UserError(f"{where}: a value of type {type(value).__name__} cannot be kept: remove its column")


def _content(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if not data.startswith(_GZIP):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is a damaged gzip file ({error}): copy it again") from None


def _jsonl(path: Path, data: bytes) -> Iterator[Row]:
    for number, value in _numbered(path, data):
        where = f"{path}:{number}"
        if not isinstance(value, dict):
            raise UserError(f"{where}: not a JSON object; write one object per line")
        yield Row(where, value)


def _json(path: Path, data: bytes) -> Iterator[Row]:
    """Yield the objects of a list, or of the only list in an object, as in `{"data": [...]}`."""
    value = _parsed(_text(data, str(path)), str(path))
    if isinstance(value, dict):
        lists = [inner for inner in value.values() if isinstance(inner, list)]
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list):
        raise UserError(f"{path}: not a list of objects; for one object per line, set data.source=jsonl")
    for number, row in enumerate(value, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path} row {number}: not a JSON object")
        yield Row(f"{path} row {number}", row)


def _csv(path: Path, data: bytes) -> Iterator[Row]:
    """Yield the rows below the header; an empty cell is a missing value."""
    lines = csv.reader(io.StringIO(_text(data, str(path)), newline=""), strict=True)
    try:
        header = next(lines, [])
        if len(set(header)) < len(header) or not all(name.strip() for name in header):
            raise UserError(f"{path}:1: the header {header} needs a different name for each column")
        for cells in lines:
            where = f"{path}:{lines.line_num}"
            if cells and len(cells) != len(header):
                raise UserError(f"{where}: {len(cells)} cells, but {len(header)} columns: quote cells with commas")
            if cells:
                yield Row(where, {name: cell or None for name, cell in zip(header, cells, strict=True)})
    except csv.Error as error:
        raise UserError(f"{path}:{lines.line_num}: not valid CSV ({error})") from None


def _parquet(path: Path, data: bytes) -> Iterator[Row]:
    try:
        rows = pq.read_table(io.BytesIO(data)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({str(error).splitlines()[0]})") from None
    for number, row in enumerate(rows, start=1):
        where = f"{path} row {number}"
        yield Row(where, {name: json_value(value, f"{where}, column {name}") for name, value in row.items()})


_READERS: dict[FileKind, Callable[[Path, bytes], Iterator[Row]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "parquet": _parquet,
}


def _numbered(path: Path, data: bytes) -> Iterator[tuple[int, Any]]:
    # str.splitlines would also split at U+2028, which JSON strings may contain. Joined files have several BOMs.
    lines = (line.removeprefix(codecs.BOM_UTF8) for line in data.split(b"\n"))
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield number, _parsed(_text(line, where), where)


def _text(data: bytes, where: str) -> str:
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        line = f":{number}" if b"\n" in data else ""
        raise UserError(f"{where}{line}: not UTF-8; save the file as UTF-8") from None


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f":{error.lineno}" if "\n" in text.rstrip("\n") else ""
        raise UserError(f"{where}{line}: not JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits; too deep nesting
        raise UserError(f"{where}: not JSON: {error}") from None
