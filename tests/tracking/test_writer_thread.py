"""Writers get each record, and one that fails or hangs disturbs neither the run nor the others."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from grpo_gsm8k.tracking import run_folder, writer_thread
from grpo_gsm8k.tracking.run_folder import RunFolder
from grpo_gsm8k.tracking.tracker import Tracker
from grpo_gsm8k.tracking.writer_thread import Record, WriterThread
from tests.tracking.test_tracker import Recorder, accuracy, events, numbers


class ListWriter:
    """A writer that keeps its records; subclasses fail or hang."""

    label = "List"

    def __init__(self, name: str = "list") -> None:
        self.name = name
        self.problem = ""
        self.records: list[Record] = []
        self.finished: list[tuple[int, Mapping[str, Any]]] = []
        self.abandoned = 0

    def open(self) -> None:
        pass

    def write(self, record: Record) -> None:
        self.records.append(record)

    def finish(self, exit_code: int, summary: Mapping[str, Any]) -> None:
        self.finished.append((exit_code, summary))

    def abandon(self) -> None:
        self.abandoned += 1


class FailingWriter(ListWriter):
    def write(self, record: Record) -> None:
        raise RuntimeError("no space\nleft")


class HangingWriter(ListWriter):
    """Blocks in its first record until the test ends."""

    def __init__(self, released: threading.Event) -> None:
        super().__init__("hanging")
        self.entered = threading.Event()
        self._released = released

    def write(self, record: Record) -> None:
        self.entered.set()
        self._released.wait(60)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return run_folder.create(tmp_path, "demo")


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def record_all(tracker: Tracker) -> None:
    tracker.step(1, {**numbers(), "train/loss": float("nan")})
    tracker.validation(1, accuracy(0.5))
    tracker.benchmarks(1, {"arc/acc": 0.25, "arc/other": float("nan")})
    tracker.rollback(0)
    tracker.step(1, numbers())


def test_each_writer_gets_each_record(run: RunFolder) -> None:
    writers = [ListWriter("a"), ListWriter("b")]
    tracker = Tracker(run, [WriterThread(writer) for writer in writers], 10, 0, Recorder())
    record_all(tracker)
    summary = tracker.close("done")
    first, validation, regression, rollback, again = writers[0].records
    assert writers[1].records == writers[0].records
    assert (first.kind, first.updates, first.values) == ("update", 1, {"step": 1, **numbers()})
    assert first.completions == run.rollouts / "step_1.parquet"
    assert (validation.kind, validation.values) == ("validation", {"val/version": 1, **accuracy(0.5)})
    assert validation.completions == run.validation / "step_1.parquet"
    assert regression.values == {"regression/version": 1, "regression/arc/acc": 0.25}
    assert (rollback.kind, rollback.updates, again.kind) == ("rollback", 0, "update")
    assert [writer.finished for writer in writers] == [[(0, summary)]] * 2
    assert [writer.abandoned for writer in writers] == [0, 0]


def test_a_failing_and_a_hanging_writer_do_not_disturb_the_others(run: RunFolder, released: threading.Event) -> None:
    good, failing, hanging = ListWriter("good"), FailingWriter("failing"), HangingWriter(released)
    shown = Recorder()
    began = time.monotonic()
    tracker = Tracker(run, [WriterThread(writer) for writer in (hanging, failing, good)], 10, 0, shown)
    record_all(tracker)
    assert hanging.entered.wait(30)  # the fault has happened
    tracker.close("failed", 0.5)
    assert time.monotonic() - began < 30  # the hanging writer would take 60 s
    assert len(good.records) == 5
    assert good.finished[0][0] == 1
    assert (failing.abandoned, hanging.abandoned, good.abandoned) == (1, 1, 0)
    assert events(run, "failing_problem")[0]["problem"] == "List stopped: RuntimeError: no space left"
    assert "did not finish within" in str(events(run, "hanging_problem")[0]["problem"])
    assert events(run, "hanging_dropped")[0]["records"] == 4  # the first one is being written
    assert events(run, "good_problem") == events(run, "good_dropped") == []
    assert len([note for note in shown.notes if "training continues" in note]) == 2
    steps = [json.loads(line) for line in run.metrics_jsonl.read_text().splitlines()]
    assert [record["step"] for record in steps if "step" in record] == [1]


def test_a_full_queue_drops_records_and_reports_it_once(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, released: threading.Event
) -> None:
    monkeypatch.setattr(writer_thread, "QUEUE_RECORDS", 2)
    hanging, shown = HangingWriter(released), Recorder()
    tracker = Tracker(run, [WriterThread(hanging)], 10, 0, shown)
    tracker.step(1, numbers())
    assert hanging.entered.wait(30)
    for step in range(2, 7):
        tracker.step(step, numbers())
    tracker.close("done", 0.2)
    assert len([note for note in shown.notes if "List" in note]) == 1
    assert "too slow" in shown.notes[0]
    assert events(run, "hanging_dropped")[0]["records"] == 5
    assert shown.closed


def test_a_problem_that_did_not_end_the_writer_is_reported_while_it_continues(run: RunFolder) -> None:
    writer, shown = ListWriter(), Recorder()
    writer.problem = "writing an offline run instead"
    tracker = Tracker(run, [WriterThread(writer)], 10, 0, shown)
    tracker.step(1, numbers())
    tracker.close("done")
    assert [note for note in shown.notes if "offline run" in note] == shown.notes
    assert len(writer.records) == len(writer.finished) == 1
