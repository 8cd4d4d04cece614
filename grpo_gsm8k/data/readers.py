"""Rows of data files: JSON lines, JSON, CSV and Parquet, each also compressed with gzip.

Values are exact: CSV cells stay text ("007", "1,080"), and long decimals of JSON stay decimals. Errors name the place.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from grpo_gsm8k.data.json_values import listed, parse_json
from grpo_gsm8k.errors import UserError, one_line

if TYPE_CHECKING:
    from pathlib import Path

FileKind = Literal["jsonl", "json", "csv", "parquet"]
FILE_KINDS: tuple[str, ...] = get_args(FileKind)
_GZIP = b"\x1f\x8b"
_COMPRESSED = (".zip", ".bz2", ".xz", ".zst", ".tar", ".tgz", ".7z")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MAX_CELL = 2**31 - 1  # the csv module's default of 131,072 characters refuses long solutions
_SHOWN = 200  # characters of a library's message


class Row(NamedTuple):
    """One row; `where` is its file and line, or file and row number, both counted from 1, for messages."""

    where: str
    values: dict[str, Any]


class RowError(UserError):
    """A row that cannot be used. `reason` has no value of the row, so that equal faults are counted together."""

    def __init__(self, where: str, message: str, reason: str | None = None) -> None:
        super().__init__(f"{where}: {message}")
        self.reason = one_line(reason or message)


def read_rows(path: Path, kind: FileKind) -> list[Row]:
    """Read all rows of a file. Raises UserError with file and line, row or column."""
    named = file_kind(path, kind)
    if named != kind and (named, kind) != ("json", "jsonl"):  # JSON lines are often called .json
        raise UserError(f"{path} is read as {kind}, but its name ends in {named}: set data.source={named}")
    data = _content(path)
    return list(_READERS[kind](path, data)) if data.strip() else []


def file_kind(path: Path, default: FileKind = "jsonl") -> FileKind:
    """Return the kind that the name of a file tells, without a final `.gz`; `default` for other names."""
    name = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    name = "jsonl" if name == "ndjson" else name
    found: FileKind = name if name in FILE_KINDS else default  # type: ignore[assignment]
    return found


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield line number and value of every non-empty line. Raises UserError with file and line."""
    yield from _numbered(path, _content(path))


def _content(path: Path) -> bytes:
    if path.name.lower().endswith(_COMPRESSED):
        raise UserError(f"{path} is compressed, and only gzip is read: unpack it, or compress it with gzip")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if not data.startswith(_GZIP):
        if path.name.lower().endswith(".gz"):
            raise UserError(f"{path} is not gzip: remove .gz from its name, or compress it again")
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
    keys = ""
    if isinstance(value, dict):
        lists = [inner for inner in value.values() if isinstance(inner, list)]
        keys = f" (its keys: {listed(list(value))})"
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list):
        raise UserError(
            f'{path}: not a list of objects, or {{"data": [...]}} with one list{keys}; for one object per line, set '
            "data.source=jsonl"
        )
    for number, row in enumerate(value, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path} row {number}: not a JSON object")
        yield Row(f"{path} row {number}", row)


def _csv(path: Path, data: bytes) -> Iterator[Row]:
    """Yield the rows below the header, each named by its first line; an empty cell is a missing value."""
    header: list[str] = []
    for where, cells in _csv_lines(path, _text(data, str(path))):
        if not header:
            _check_header(cells, where)
            header = cells
        elif len(cells) != len(header):
            raise UserError(
                f"{where}: {len(cells)} cells, but {len(header)} columns ({listed(header)}): quote cells with commas"
            )
        else:
            yield Row(where, {name: cell or None for name, cell in zip(header, cells, strict=True)})


def _csv_lines(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield place and cells of every line that is not empty; a quoted cell may contain line breaks."""
    csv.field_size_limit(_MAX_CELL)
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        where = f"{path}:{lines.line_num + 1}"
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{where}: not valid CSV ({error}): quote cells with commas or line breaks") from None
        if cells:
            yield where, cells


def _check_header(header: list[str], where: str) -> None:
    if not all(name.strip() for name in header):
        raise UserError(f"{where}: the header has a column without a name ({listed(header)}): name or remove it")
    _refuse_repeated(header, where)
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise UserError(f"{where}: the header is one column, {header[0][:60]!r}: separate columns by commas")


def _refuse_repeated(names: list[str], where: str) -> None:
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise UserError(f"{where}: the column {repeated[0]!r} occurs twice: rename or remove one")


def _parquet(path: Path, data: bytes) -> Iterator[Row]:
    number = 0
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        _refuse_repeated(file.schema_arrow.names, str(path))
        _refuse_nanoseconds(file.schema_arrow, path)
        for batch in file.iter_batches():
            for values in _values(batch, path, number):
                number += 1
                yield Row(f"{path} row {number}", values)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last one for a name of a column
        after = f" after row {number}" if number else ""
        raise UserError(
            f"{path} is not a readable Parquet file{after} ({str(error)[:_SHOWN]}): write it again"
        ) from None


def _refuse_nanoseconds(schema: pa.Schema, path: Path) -> None:
    """Raise UserError for times of a day in nanoseconds, which pyarrow truncates to microseconds."""
    for field in schema:
        if field.type == pa.time64("ns"):
            raise UserError(f"{path}: the column {field.name!r} has times in nanoseconds: convert it to microseconds")


def _values(batch: pa.RecordBatch, path: Path, before: int) -> Iterable[dict[str, Any]]:
    """Return the rows of a batch. Raises UserError with row and column for a cell that has no exact value."""
    try:
        return batch.to_pylist()  # type: ignore[no-any-return]
    except ValueError:  # a text that is not UTF-8, nanoseconds
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            for number, cell in enumerate(column, start=before + 1):
                _check_cell(cell, f"{path} row {number}, column {name}")
        raise


def _check_cell(cell: pa.Scalar, where: str) -> None:
    try:
        cell.as_py()
    except UnicodeDecodeError:
        raise UserError(f"{where}: not UTF-8; write the file again") from None
    except ValueError as error:
        raise UserError(f"{where}: {str(error)[:_SHOWN]}; convert the column") from None


_READERS: dict[FileKind, Callable[[Path, bytes], Iterator[Row]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "parquet": _parquet,
}


def _numbered(path: Path, data: bytes) -> Iterator[tuple[int, Any]]:
    _refuse_utf16(data, f"{path}")
    # str.splitlines would also split at U+2028, which JSON strings may contain. Joined files have several BOMs.
    lines = (line.removeprefix(codecs.BOM_UTF8) for line in data.split(b"\n"))
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield number, _parsed(_text(line, where), where)


def _text(data: bytes, where: str) -> str:
    """Decode a file, or a line without its end."""
    _refuse_utf16(data, where)
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        bad = data.find(b"\x00")
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = error.start
    if bad >= 0:
        number = data.count(b"\n", 0, bad) + 1
        line = f":{number}" if b"\n" in data else ""
        raise UserError(f"{where}{line}: not UTF-8 text; save the file as UTF-8")
    return text


def _refuse_utf16(data: bytes, where: str) -> None:
    if data.startswith(_UTF16):
        raise UserError(f"{where}: the file is UTF-16, not UTF-8; save the file as UTF-8")


def _parsed(text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        line = f":{error.lineno}" if "\n" in text else ""
        hint = "; for one object per line, set data.source=jsonl" if line and error.msg == "Extra data" else ""
        raise UserError(f"{where}{line}: not JSON: {error.msg} (column {error.colno}){hint}") from None
    except (ValueError, RecursionError) as error:  # NaN, a repeated key, a number of too many digits, too deep nesting
        raise UserError(f"{where}: not JSON: {error}") from None
