"""TensorBoard: a copy of a run's records as an event file in the run folder. Only this module imports tensorboard."""

from __future__ import annotations

import importlib.util
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.tracking.completions import read_completions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from grpo_gsm8k.config import CompletionTablesConfig
    from grpo_gsm8k.tracking.writer_thread import Record

FOLDER = "tensorboard"
BINS = 30
INSTALL = "pip install tensorboard==2.21.0"


def check_tensorboard() -> None:
    """Raise UserError if the package is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(f"tracker contains tensorboard, whose package is not installed: {INSTALL}")


class TensorboardWriter:
    """Writer of an event file, one for each start of a run. Validations have the same axis as updates."""

    name = "tensorboard"
    label = "TensorBoard"

    def __init__(self, folder: Path, tables: CompletionTablesConfig) -> None:
        """`folder` is the run folder."""
        self.problem = ""
        self._folder = folder / FOLDER
        self._tables = tables
        self._events: Any = None
        self._records: Any = None

    def open(self) -> None:
        """Create the event file. Its format needs the version as the first event."""
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{os.getpid()}"
        self._records = RecordWriter((self._folder / name).open("ab"))
        self._events = event_pb2
        self._append(file_version="brain.Event:2")

    def write(self, record: Record) -> None:
        """Write the values as scalars, the distribution of the completions, and at times some of them as text."""
        if record.kind == "rollback":  # TensorBoard then ignores what was written for later steps
            log = self._events.SessionLog(status=self._events.SessionLog.START)
            self._append(step=record.updates + 1, session_log=log)
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in record.values.items() if "/" in name]
        self._append(step=record.updates, summary=Summary(value=[*values, *self._media(record)]))

    def finish(self, exit_code: int, summary: Mapping[str, Any]) -> None:
        """Close the file."""
        self._records.close()

    def abandon(self) -> None:
        """Leave the file as it is: each record was flushed."""

    def _append(self, **fields: Any) -> None:
        self._records.write(self._events.Event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()

    def _media(self, record: Record) -> list[Any]:
        try:
            found = read_completions(record, self._tables)
        except (OSError, ValueError) as error:
            self.problem = self.problem or f"no TensorBoard text of {record.kind} {record.updates}: {error}"
            return []
        if found is None:
            return []
        prefix = "val" if record.kind == "validation" else "rollout"
        media = [
            _histogram(f"{prefix}/reward_histogram", found.rewards),
            _histogram(f"{prefix}/length_histogram", found.lengths),
        ]
        texts = [_markdown(dict(zip(found.columns, row, strict=True))) for row in found.rows]
        return [*media, _text(f"{prefix}/completions", texts)] if texts else media


def _histogram(tag: str, numbers: list[Any]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

    values = np.asarray(numbers, dtype=np.float64)
    counts, edges = np.histogram(values, BINS)
    proto = HistogramProto(
        min=values.min(),
        max=values.max(),
        num=len(values),
        sum=values.sum(),
        sum_squares=(values**2).sum(),
        bucket_limit=edges[1:],
        bucket=counts,
    )
    return Summary.Value(tag=tag, histo=proto)


def _text(tag: str, texts: list[str]) -> Any:
    """Return texts as TensorBoard's text plugin stores them: a tensor of strings."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(texts))])
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=[text.encode() for text in texts])
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary.Value(tag=tag, tensor=tensor, metadata=metadata)


def _markdown(row: dict[str, Any]) -> str:
    """Return one completion as Markdown: its numbers on a line, question and text verbatim."""
    facts = ", ".join(f"{name} {value}" for name, value in row.items() if name not in ("question", "text"))
    blocks = "".join(f"\n\n{_indented(str(row[name]))}" for name in ("question", "text") if name in row)
    return facts + blocks


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
