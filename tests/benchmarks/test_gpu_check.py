"""`make gpu-check` on the CPU: how steps are chosen, run and judged, and whole checks with and without the engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_check.child import REASON
from benchmarks.gpu_check.outcome import FigureFile
from benchmarks.gpu_check.run_steps import judged, run_step, run_steps
from benchmarks.gpu_check.steps import STEPS, Step, chosen
from tests.conftest import REPO


def test_steps_are_chosen_by_number() -> None:
    assert chosen(None) == list(STEPS)
    assert [step.number for step in chosen("6, 2")] == [2, 6]
    for wrong in ("15", "two", ""):
        with pytest.raises(ValueError, match="name steps from 1 to 14"):
            chosen(wrong)


def test_figures_of_a_crashed_step_are_kept_without_the_line_that_was_cut_off(tmp_path: Path) -> None:
    figures = FigureFile(tmp_path / "figures.jsonl")
    assert figures.read() == {}
    figures.append("tokens", 3)
    figures.append("kernel", "flash")
    with (tmp_path / "figures.jsonl").open("a") as file:
        file.write('["seconds", 1')
    assert figures.read() == {"tokens": 3, "kernel": "flash"}


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (0, None, ("pass", "")),
        (1, "too slow", ("fail", "too slow")),
        (3, "no GPU", ("skipped", "no GPU")),
        (1, None, ("fail", "crashed (exit code 1): last line")),
        (3, None, ("fail", "crashed (exit code 3): last line")),
        (-9, None, ("fail", "crashed (killed by signal 9): last line")),
        (None, None, ("fail", "not finished after 5 s; last output: last line")),
    ],
)
def test_outcomes(code: int | None, reason: str | None, expected: tuple[str, str]) -> None:
    figures = {} if reason is None else {REASON: reason}
    assert judged(code, figures, 5.0, "last line") == expected


def test_a_step_that_crashes_or_hangs_has_failed(tmp_path: Path) -> None:
    crashed = run_step(Step(1, "crash", "not_a_module", 60, False), "cpu", False, tmp_path / "crash", 60)
    assert crashed.status == "fail"
    assert "ModuleNotFoundError" in crashed.reason
    slow = run_step(Step(1, "slow", "machine", 60, False), "cpu", False, tmp_path / "slow", 0.01)
    assert (slow.status, slow.figures) == ("fail", {})
    assert "not finished" in slow.reason


def test_steps_without_engine_or_time_are_skipped(tmp_path: Path) -> None:
    (engine,) = run_steps(chosen("3"), "cpu", False, tmp_path)
    (late,) = run_steps(chosen("1"), "cpu", False, tmp_path, total_s=0)
    assert (engine.status, late.status) == ("skipped", "skipped")
    assert "--only 1" in late.reason


def check(tmp_path: Path, *arguments: str) -> dict[int, dict[str, object]]:
    """Run the program, and return its steps by number."""
    output = tmp_path / "check.json"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--cpu", "--output", str(output), *arguments]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=900, check=False)
    found = json.loads(output.read_text())
    assert found["machine"]["cores"]
    assert found["versions"]["torch"]
    failed = [step for step in found["steps"] if step["status"] == "fail"]
    assert not failed, done.stdout
    assert done.returncode == 0
    return {step["number"]: step for step in found["steps"]}


@pytest.mark.slow
def test_the_whole_check_without_the_engine(tmp_path: Path) -> None:
    steps = check(tmp_path, "--no-engine")
    assert list(steps) == list(range(1, 15))
    assert {number for number, step in steps.items() if step["status"] == "pass"} == {1, 2, 6, 7, 8}


@pytest.mark.slow
def test_steps_with_the_engine(tmp_path: Path) -> None:
    """The other steps with an engine do on a CPU what tests/actor and tests/orchestrator do."""
    steps = check(tmp_path, "--only", "3,6")
    assert {step["status"] for step in steps.values()} == {"pass"}
    assert "mean |engine - learner|, nats" in steps[6]["figures"]  # type: ignore[operator]
