"""Metrics, events and summary: complete records, strict names, and no failure of a writer stops a run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from grpo_gsm8k.terminal.plain_console import PlainConsole
from grpo_gsm8k.tracking import run_folder
from grpo_gsm8k.tracking.metrics import METRICS
from grpo_gsm8k.tracking.run_folder import RunFolder
from grpo_gsm8k.tracking.tracker import Tracker, TrackingError
from grpo_gsm8k.tracking.writer_thread import WriterThread

if TYPE_CHECKING:
    from grpo_gsm8k.terminal.console import ProgressConsole


class Recorder:
    """A console that records its calls."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[int] = []
        self.phases: list[str] = []
        self.histories: list[object] = []
        self.closed = False

    def begin(self, phase: str) -> None:
        pass

    def end(self, phase: str, seconds: float) -> None:
        self.phases.append(phase)

    def history(self, records: object, elapsed_s: float) -> None:
        self.histories.append(records)

    def update(self, update: int, metrics: object, completions: Path) -> None:
        self.steps.append(update)

    def validating(self, version: int) -> None:
        pass

    def validation(self, version: int, metrics: object, completions: Path) -> None:
        pass

    def total(self, updates: int) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return run_folder.create(tmp_path, "demo")


def open_tracker(
    run: RunFolder, *writers: WriterThread, start: int = 0, console: ProgressConsole | None = None
) -> Tracker:
    return Tracker(run, writers, 10, start, console or Recorder())


def numbers(reward: float = 0.5, seconds: float = 2.0, rate: float = 100.0) -> dict[str, float]:
    return {
        "train/reward_mean": reward,
        "train/reward_format": 0.1,
        "time/step_s": seconds,
        "rollout/tokens_per_s": rate,
        "time/actor_idle_frac": 0.25,
    }


def accuracy(value: float, half: float = 0.05) -> dict[str, float]:
    return {
        "val/accuracy": value,
        "val/accuracy_ci_low": value - half,
        "val/accuracy_ci_high": value + half,
        "val/n": 64,
    }


def lines(path: Path) -> list[dict[str, object]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not strict JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def events(run: RunFolder, kind: str) -> list[dict[str, object]]:
    return [event for event in lines(run.events_jsonl) if event["kind"] == kind]


def test_each_step_is_on_disk_at_once_and_only_once(run: RunFolder) -> None:
    tracker = open_tracker(run)
    tracker.step(1, numbers())
    assert lines(run.metrics_jsonl) == [{"step": 1, **numbers()}]
    with pytest.raises(TrackingError, match="exactly once"):
        tracker.step(1, numbers())
    with pytest.raises(TrackingError, match="below 1"):
        tracker.step(0, numbers())
    tracker.step(3, numbers())
    assert [(e["after"], e["step"]) for e in events(run, "steps_out_of_order")] == [(1, 3)]
    tracker.close("done")
    again = open_tracker(run, start=3)
    with pytest.raises(TrackingError, match="exactly once"):
        again.step(3, numbers())


def test_unknown_names_are_refused_and_nothing_is_written(run: RunFolder) -> None:
    tracker = open_tracker(run)
    for name in ("train/reward", "qwen/loss", "val/acuracy"):
        with pytest.raises(TrackingError, match=name):
            tracker.step(1, {"train/loss": 0.0, name: 1.0})
    with pytest.raises(TrackingError, match="has val/version=4"):
        tracker.validation(5, {"val/version": 4})
    assert lines(run.metrics_jsonl) == []
    assert all(METRICS.values())


def test_values_that_are_not_finite_become_null_and_are_reported(run: RunFolder) -> None:
    shown = Recorder()
    tracker = open_tracker(run, console=shown)
    tracker.step(1, {"train/loss": float("nan"), "train/grad_norm": float("inf"), "train/lr": 0.0})
    assert lines(run.metrics_jsonl) == [{"step": 1, "train/loss": None, "train/grad_norm": None, "train/lr": 0.0}]
    assert events(run, "not_finite")[0]["values"] == {"train/loss": "nan", "train/grad_norm": "inf"}
    assert "train/grad_norm" in shown.notes[0]


def test_validation_has_its_own_line_and_a_repetition_replaces_it(run: RunFolder) -> None:
    tracker = open_tracker(run)
    tracker.step(1, numbers())
    tracker.validation(0, accuracy(0.1))
    tracker.validation(0, accuracy(0.2))
    assert lines(run.metrics_jsonl)[1:] == [{**accuracy(0.2), "val/version": 0}]
    assert events(run, "validation_repeated")[0]["replaced"] == [{**accuracy(0.1), "val/version": 0}]


def test_rollback_makes_later_records_void(run: RunFolder) -> None:
    tracker = open_tracker(run)
    tracker.rollback(0)
    for step in range(1, 7):
        tracker.step(step, numbers())
        tracker.validation(step, accuracy(step / 10))
    tracker.rollback(4)
    tracker.step(5, numbers(reward=0.9))
    records = lines(run.metrics_jsonl)
    assert [r["step"] for r in records if "step" in r] == [1, 2, 3, 4, 5]
    assert [r["val/version"] for r in records if "val/version" in r] == [1, 2, 3, 4]
    assert records[-1]["train/reward_mean"] == 0.9
    (event,) = events(run, "rollback")
    assert (event["void_steps"], event["void_validations"]) == ([5, 6], [5, 6])
    assert events(run, "steps_missing") == []
    tracker.rollback(7)  # a checkpoint of step 7 without the records of steps 6 and 7
    assert events(run, "steps_missing")[0]["steps"] == [6, 7]


def test_a_torn_line_is_repaired_at_open(run: RunFolder) -> None:
    tracker = open_tracker(run)
    tracker.step(1, numbers())
    with run.metrics_jsonl.open("a") as file:
        file.write('{"step": 2, "train/lo')
    tracker = open_tracker(run, start=1)
    tracker.step(2, numbers())
    assert [r["step"] for r in lines(run.metrics_jsonl)] == [1, 2]
    assert events(run, "repaired")[0]["torn_bytes"] == 21


def test_summary(run: RunFolder) -> None:
    tracker = open_tracker(run)
    tracker.validation(4, accuracy(0.6))
    tracker.validation(0, accuracy(0.3))
    tracker.validation(2, accuracy(0.7))
    tracker.step(1, numbers(seconds=1.0, rate=1000.0))
    tracker.step(2, numbers(seconds=9.0, rate=100.0))
    tracker.event("actor_restarted", reason="killed")
    summary = tracker.close("done")
    assert json.loads(run.summary_json.read_text()) == summary
    assert tracker.summary()["status"] == "done"
    assert [summary[f"{which}_validation"]["version"] for which in ("first", "last", "best")] == [0, 4, 2]
    assert summary["tokens_per_s_mean"] == pytest.approx(1900 / 10)  # tokens over time, not a mean of rates
    assert summary["actor_idle_frac_mean"] == pytest.approx(0.25)
    assert summary["learner_idle_frac_mean"] is None
    assert summary["restarts"] == {"actor": 1, "learner": 0}
    assert (summary["status"], summary["steps"], summary["change"]) == ("done", 2, "higher")
    assert 0 < summary["wall_seconds"] < 60


def test_the_learner_corrects_the_number_of_updates(run: RunFolder) -> None:
    stream = io.StringIO()
    tracker = open_tracker(run, console=PlainConsole(10, 0, None, stream))
    tracker.set_total(10)
    assert stream.getvalue() == ""
    tracker.set_total(7)
    tracker.step(1, numbers())
    tracker.close("stopped early")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "the run has 7 updates, not 10: some prompts are too long"
    assert lines[1].startswith("update 1/7 | ")
    assert json.loads(run.summary_json.read_text())["total_steps"] == 7
    assert json.loads(run.training_stats_json.read_text())["first"]["reward"] == 0.5


def test_phases_and_restarts_are_recorded_and_shown(run: RunFolder) -> None:
    shown = Recorder()
    tracker = open_tracker(run, console=shown)
    tracker.end("loading weights", 1.23456)
    assert (shown.phases, events(run, "start_phase")[0]["seconds"]) == (["loading weights"], 1.235)
    tracker.worker_event("worker_started", worker="actor-0")
    tracker.worker_event("actor_restarted", worker="actor-0", reason="exit code -9")
    assert shown.notes == ["actor-0 failed: exit code -9"]
    assert events(run, "actor_restarted")[0]["reason"] == "exit code -9"
    tracker.step(1, numbers())
    tracker.step(2, numbers())
    tracker.rollback(1)
    assert shown.histories == [[{"step": 1, **numbers()}]]


def test_running_out_of_memory_is_an_event_and_a_line(run: RunFolder) -> None:
    shown = Recorder()
    tracker = open_tracker(run, console=shown)
    tracker.out_of_memory(4096, "CUDA out of memory")
    tracker.step(1, {**numbers(), "learner/oom_halvings": 1.0})
    tracker.annotate({"outcome": {"hours": 1.0}})
    assert tracker.close("stopped: budget")["outcome"] == {"hours": 1.0}
    (event,) = [e for e in lines(run.events_jsonl) if e["kind"] == "out_of_memory"]
    assert (event["token_budget"], event["reason"]) == (4096, "CUDA out of memory")
    assert "learner.token_budget=4096" in shown.notes[0]
