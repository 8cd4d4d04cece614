"""The tracker writes the diagnoses of its records into summary.json."""

from __future__ import annotations

import json
from pathlib import Path

from grpo_gsm8k.tracking import run_folder
from grpo_gsm8k.tracking.tracker import Tracker
from tests.diagnoses.recorded_runs import recorded
from tests.tracking.test_tracker import Recorder


def test_the_summary_has_the_diagnoses(tmp_path: Path) -> None:
    """The metrics of a recorded run, written once more."""
    run, record = run_folder.create(tmp_path, "diagnosed"), recorded("short_limit")
    tracker = Tracker(run, (), 10, 0, Recorder())
    for update in record.updates:
        tracker.step(update["step"], {name: value for name, value in update.items() if name != "step"})
    tracker.out_of_memory(2048, "CUDA out of memory")
    tracker.diagnose(record.config, record.machine)
    tracker.close("done")
    found = json.loads(run.summary_json.read_text())["diagnoses"]
    assert [diagnosis["kind"] for diagnosis in found] == ["reward_zero_truncated", "memory_budget_halved"]
    assert found[0] == {
        "kind": "reward_zero_truncated",
        "severity": "warning",
        "evidence": "100 % of groups tied, 0 % of completions right, 100 % truncated",
        "advice": "raise policy_gradient.max_new_tokens (now 4)",
        "keys": ["policy_gradient.max_new_tokens"],
    }


def test_a_run_without_updates_has_none(tmp_path: Path) -> None:
    run = run_folder.create(tmp_path, "failed")
    tracker = Tracker(run, (), 10, 0, Recorder())
    tracker.diagnose({}, {})
    tracker.close("failed")
    assert json.loads(run.summary_json.read_text())["diagnoses"] == []
