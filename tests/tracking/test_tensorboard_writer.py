"""TensorBoard's own reader finds what a run recorded in its event files."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from cli import load_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.tracking import run_folder, tensorboard_writer
from grpo_gsm8k.tracking.run_folder import RunFolder
from grpo_gsm8k.tracking.tracker import Tracker
from grpo_gsm8k.tracking.writers import check_writers, open_writers
from tests.tracking.parquet_rows import write_completions
from tests.tracking.test_tracker import Recorder, accuracy, events, lines, numbers

CONFIG = load_config(["command=policy_gradient", "preset=cpu_demo", "tracker=[tensorboard]"])
installed = pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return run_folder.create(tmp_path, "demo")


def read_back(run: RunFolder) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run.path / "tensorboard"))
    found.Reload()
    return found


def steps(found: Any, tag: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 6)) for event in found.Scalars(tag)]


@installed
def test_event_files_can_be_read_back(run: RunFolder) -> None:
    tracker = Tracker(run, open_writers(CONFIG, run).threads, 10, 0, Recorder())
    for step in (1, 2):
        write_completions(run.rollouts / f"step_{step}.parquet")
        tracker.step(step, numbers(reward=step / 10))
    write_completions(run.validation / "step_2.parquet", 8)
    tracker.validation(2, accuracy(0.5))
    tracker.benchmarks(2, {"arc/acc": 0.25})
    tracker.close("done")
    assert events(run, "tensorboard_problem") == []
    found = read_back(run)
    assert steps(found, "train/reward_mean") == [(1, 0.1), (2, 0.2)]
    assert steps(found, "val/accuracy") == [(2, 0.5)]
    assert steps(found, "regression/arc/acc") == [(2, 0.25)]
    assert set(found.Tags()["scalars"]) == {*numbers(), *accuracy(0.5), "val/version"} | {
        "regression/arc/acc",
        "regression/version",
    }
    lengths = found.Histograms("rollout/length_histogram")[0].histogram_value
    assert (lengths.min, lengths.max, lengths.num, lengths.sum) == (1, 40, 40, sum(range(1, 41)))
    assert sum(lengths.bucket) == 40
    (texts,) = found.Tensors("rollout/completions")  # of update 1; the next one is due at 10
    assert len(texts.tensor_proto.string_val) == CONFIG.completion_tables.rows
    assert b"completion 0" in texts.tensor_proto.string_val[0]
    assert "torch" not in sys.modules or "tensorflow" not in sys.modules


@installed
def test_updates_that_were_rolled_back_are_not_shown_twice(run: RunFolder) -> None:
    tracker = Tracker(run, open_writers(CONFIG, run).threads, 10, 0, Recorder())
    for step in (1, 2, 3):
        tracker.step(step, numbers(reward=0.1))
    tracker.rollback(1)
    tracker.step(2, numbers(reward=0.7))
    tracker.close("done")
    assert steps(read_back(run), "train/reward_mean") == [(1, 0.1), (2, 0.7)]


@installed
def test_a_file_of_completions_that_cannot_be_read_is_reported_and_the_rest_recorded(run: RunFolder) -> None:
    tracker = Tracker(run, open_writers(CONFIG, run).threads, 10, 0, Recorder())
    (run.rollouts / "step_1.parquet").write_bytes(b"PAR1")
    tracker.step(1, numbers())
    tracker.close("done")
    assert "no TensorBoard text of update 1" in str(events(run, "tensorboard_problem")[0]["problem"])
    assert steps(read_back(run), "train/reward_mean") == [(1, 0.5)]
    assert len(lines(run.metrics_jsonl)) == 1


def test_a_missing_package_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard_writer.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="tracker contains tensorboard, whose package is not installed: pip install"):
        check_writers(CONFIG)
