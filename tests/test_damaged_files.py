"""Every reader of bytes that come from outside returns something or raises an error of this project, never another.

Hypothesis damages valid files: cuts, changed and inserted bytes, other JSON in place of a value.
"""

from __future__ import annotations

import json
import multiprocessing
import pickle
import queue
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grpo_gsm8k.data.readers import read_rows
from grpo_gsm8k.errors import LabError
from grpo_gsm8k.files import checksums, json_lines
from grpo_gsm8k.learner import checkpoint
from grpo_gsm8k.report import collect
from grpo_gsm8k.tracking import ledger, manifest, run_folder
from grpo_gsm8k.tracking.run_folder import RunFolder
from grpo_gsm8k.transport import weights
from grpo_gsm8k.transport.channel import Channel
from grpo_gsm8k.transport.protocol import WeightsRef

pytestmark = pytest.mark.slow
EXAMPLES = 5000
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NESTED = b"[" * 100_000  # Python's parser runs out of stack


@st.composite
def damaged(draw: Callable[..., Any], valid: bytes) -> bytes:
    """Valid bytes with a cut and a few edits, or bytes of any kind."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=64) | st.just(NESTED))  # type: ignore[no-any-return]
    content = bytearray(valid[: draw(st.integers(0, len(valid)))] if draw(st.booleans()) else valid)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 4))] = draw(
            st.binary(max_size=4) | st.sampled_from([b"\n", b"null", b'"'])
        )
    return bytes(content)


@st.composite
def replaced(draw: Callable[..., Any], valid: Any) -> Any:
    """A JSON value in which one value, at any depth, is another one or missing."""
    if not isinstance(valid, dict | list) or not valid or draw(st.integers(0, 3)) == 0:
        return draw(JSON)
    copied = dict(valid) if isinstance(valid, dict) else list(valid)
    key = draw(st.sampled_from(sorted(copied) if isinstance(copied, dict) else range(len(copied))))
    if draw(st.integers(0, 4)) == 0:
        del copied[key]
    else:
        copied[key] = draw(replaced(copied[key]))
    return copied


@dataclass(frozen=True)
class Reader:
    """A reader of one file in a folder, and valid content of that file."""

    file: str
    valid: bytes
    read: Callable[[Path], object]


def _line(**values: object) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _both_ends(path: Path) -> object:
    lines = json_lines.JsonLines(path)
    try:
        lines.append({"later": 1})
        return lines.records()
    finally:
        lines.close()


LEDGER = _line(step=1, prompts=[[0, "a", "", 1, 2], [0, "b", "no_variance"]]) + _line(rollback=0)
METRICS = _line(step=1, **{"train/loss": 0.5, "time/step_s": 1.0}) + _line(**{"val/version": 1, "val/accuracy": 0.5})
EVENTS = _line(time=1.0, kind="start", start_step=0) + _line(time=2.0, kind="end", status="done")
_BUFFER = pa.BufferOutputStream()
pq.write_table(pa.table({"question": ["1 + 1?"], "answer": [2.5]}), _BUFFER, compression="none")
PARQUET = _BUFFER.getvalue().to_pybytes()
READERS = {
    "lines": Reader("x.jsonl", METRICS, _both_ends),
    "read_lines": Reader("x.jsonl", METRICS, json_lines.read_lines),
    "read_json": Reader("x.json", b'{"a": [1, {"b": null}]}', json_lines.read_json),
    "ledger": Reader("ledger.jsonl", LEDGER, ledger.read),
    "manifest of a run": Reader(
        "manifest.json", b'{"git": {"sha": "a"}}', lambda p: manifest.read_manifest(RunFolder(p.parent))
    ),
    "command of a run": Reader(
        "config.yaml", b"command: sft\nseed: 1\n", lambda p: run_folder.command_of(RunFolder(p.parent))
    ),
    "metrics in a report": Reader("metrics.jsonl", METRICS, lambda p: collect.read_run(p.parent, "run")),
    "data as jsonl": Reader(
        "x.jsonl", b'{"question": "1 + 1?", "answer": "#### 2"}\n', lambda p: read_rows(p, "jsonl")
    ),
    "data as json": Reader("x.json", b'[{"question": "1 + 1?", "answer": 2.5}]', lambda p: read_rows(p, "json")),
    "data as csv": Reader("x.csv", b'question,answer\n"1, 2",3\n', lambda p: read_rows(p, "csv")),
    "data as parquet": Reader("x.parquet", PARQUET, lambda p: read_rows(p, "parquet")),
    "events in a report": Reader("events.jsonl", EVENTS, lambda p: collect.read_run(p.parent, "run")),
}


@pytest.mark.parametrize("name", READERS)
@fuzzed
@given(data=st.data())
def test_a_damaged_file(name: str, data: st.DataObject, tmp_path: Path) -> None:
    reader = READERS[name]
    path = tmp_path / reader.file
    path.write_bytes(data.draw(damaged(reader.valid)))
    with suppress(LabError):
        reader.read(path)


RECORDS = {
    "ledger": ("ledger.jsonl", {"step": 1, "prompts": [[0, "a", "", 1, 2]]}, ledger.read),
    "metrics": ("metrics.jsonl", json.loads(METRICS.splitlines()[0]), lambda p: collect.read_run(p.parent, "run")),
    "validations": ("metrics.jsonl", json.loads(METRICS.splitlines()[1]), lambda p: collect.read_run(p.parent, "run")),
    "events": ("events.jsonl", json.loads(EVENTS.splitlines()[0]), lambda p: collect.read_run(p.parent, "run")),
}


@pytest.mark.parametrize("name", RECORDS)
@fuzzed
@given(data=st.data())
def test_a_record_with_another_value(name: str, data: st.DataObject, tmp_path: Path) -> None:
    file, valid, read = RECORDS[name]
    path = tmp_path / file
    path.write_text(json.dumps(data.draw(replaced(valid))) + "\n")
    with suppress(LabError):
        read(path)


STATE = {
    "step": 1,
    "pending_validations": [0],
    "accuracy": {"0": 0.5},
    "wandb_run_id": None,
    "seed": 0,
    "plan": {"cursor": 3, "positions": {"1": [1, 2]}, "skipped": {}, "solve_counts": {"a": [1, 2]}, "recent": {}},
    "kl_coefficient": 0.0,
    "state_version": checkpoint.STATE_VERSION,
}


@fuzzed
@given(state=replaced(STATE))
def test_the_counters_of_a_checkpoint(state: Any, tmp_path: Path) -> None:
    """The manifest agrees with them: whoever edits a checkpoint can also write its manifest."""
    (tmp_path / "state.json").write_text(json.dumps(state))
    checksums.write_manifest(tmp_path, {"step": 1})
    with suppress(LabError):
        checkpoint.read_state(tmp_path)


@pytest.mark.parametrize("agrees", [True, False])
@fuzzed
@given(data=st.data())
def test_the_manifest_of_published_weights(agrees: bool, data: st.DataObject, tmp_path: Path) -> None:
    """`agrees`: with its own digest, so that only the values are wrong."""
    (tmp_path / weights.MODEL_FILE).write_bytes(b"abcd")
    path = tmp_path / checksums.MANIFEST
    path.unlink(missing_ok=True)
    extra = {"version": 1, "kind": "model", "canary": {"token_ids": [1, 2], "logprobs": [-0.5]}}
    checksums.write_manifest(tmp_path, extra)
    if agrees:
        found = json.loads(path.read_bytes())
        del found["manifest_xxh3_128"]
        changed = json.loads(json.dumps(data.draw(replaced(found))))
        if isinstance(changed, dict):
            changed["manifest_xxh3_128"] = checksums.digest_of_json(changed)
        path.write_text(json.dumps(changed))
    else:
        path.write_bytes(data.draw(damaged(path.read_bytes())))
    with suppress(LabError):
        weights.verify(WeightsRef(1, str(tmp_path)))


@settings(fuzzed, max_examples=1000)
@given(frame=damaged(pickle.dumps(WeightsRef(1, "/dev/shm/x"))))
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_message_between_processes(frame: bytes) -> None:
    """Whatever arrives, the reader either gets a message or learns that the peer is of no use any more."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    _, unused = multiprocessing.Pipe(duplex=False)
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    Channel(reader, unused, events.put, lambda: events.put("closed"))
    writer.send_bytes(frame)
    writer.close()
    while events.get(timeout=60) != "closed":
        pass
