"""`make bench-gpu`: the gate's comparison, the table, and the program on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gpu_speed.baseline import Figures, baseline_file, compare, read_baseline, write_baseline
from benchmarks.gpu_speed.case_process import Row
from benchmarks.gpu_speed.cases import ON_CPU
from benchmarks.gpu_speed.table import HEADER, markdown
from tests.conftest import REPO

BASE = Figures(update_s=2.0, peak_mb=1000.0)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (BASE, []),
        (Figures(2.29, 1009.0), []),
        (Figures(1.0, 500.0), []),
        (Figures(2.32, 1000.0), ["+16%"]),
        (Figures(2.0, 1011.0), ["+1.1%"]),
        (Figures(3.0, 2000.0), ["+50%", "+100.0%"]),
    ],
)
def test_the_gate_allows_15_percent_of_time_and_1_percent_of_memory(now: Figures, words: list[str]) -> None:
    lines = compare({"a": BASE}, {"a": now})
    assert len(lines) == len(words)
    assert all(word in line for word, line in zip(words, lines, strict=True))


def test_the_gate_does_not_pass_without_a_comparison() -> None:
    assert compare({"a": BASE}, {}) == ["a: not measured"]
    assert compare({}, {"a": BASE}) == ["a: not in the baseline"]


def test_baselines_are_kept_by_device(tmp_path: Path) -> None:
    file = baseline_file("NVIDIA H100 80GB HBM3", tmp_path / "baselines")
    assert file.name == "nvidia_h100_80gb_hbm3.json"
    write_baseline(file, {"a": BASE})
    assert read_baseline(file) == {"a": BASE}


def test_the_table_divides_by_the_whole_update() -> None:
    row = Row(1000, 3000, 2.0, 0.5, 1.0, 0.25, 2048.0, flops=4e12, user_flops=8e12)
    lines = markdown({ON_CPU[0]: row, ON_CPU[1]: "out | of memory"}, peak_flops=1e13).splitlines()
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells == [
        *("tiny", "full", "48", "1000", "2.000", "0.500 / 1.000 / 0.250"),
        *("500", "20.0%", "1500", "40.0%", "2.00"),
    ]
    assert "out / of memory" in lines[3]
    assert {line.count("|") for line in lines} == {HEADER.count("|")}
    assert " - |" in markdown({ON_CPU[0]: replace(row)}, peak_flops=None)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu_speed", "--rounds", "1", *arguments]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_a_baseline_is_saved_and_a_far_better_one_fails_the_gate(tmp_path: Path) -> None:
    saved = run("--save", "--baselines", str(tmp_path))
    assert saved.returncode == 0, saved.stderr
    (file,) = tmp_path.glob("*.json")
    content = json.loads(file.read_text())
    assert set(content) == {case.name for case in ON_CPU}
    for figures in content.values():
        figures["update_s"] /= 1000
    file.write_text(json.dumps(content))
    gated = run("--gate", "--baselines", str(tmp_path))
    assert gated.returncode == 1
    assert "instead of" in gated.stdout


@pytest.mark.slow
def test_the_gate_needs_a_baseline(tmp_path: Path) -> None:
    done = run("--gate", "--baselines", str(tmp_path))
    assert done.returncode == 2
    assert "does not exist" in done.stderr
