"""Figures of the training section beyond single metrics: histograms of lengths, kinds of answers over time, bands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grpo_gsm8k.report.collect import read_run
from grpo_gsm8k.report.kinds_over_time import kinds_over_time
from grpo_gsm8k.report.length_histograms import length_histograms
from grpo_gsm8k.report.panels import MAX_POINTS, panels
from grpo_gsm8k.report.training import training_groups
from tests.report import runs as made


def with_rollouts(runs: Path, name: str, updates: int = 8) -> Path:
    """Completion i of update u has i + u tokens and is right if i is even."""
    folder = made.training(runs, name, updates=updates)
    (folder / "rollouts").mkdir()
    for step in range(1, updates + 1):
        rows = [{"tokens": [1] * (i + step), "kind": "logic" if i % 2 else "correct"} for i in range(10)]
        pq.write_table(pa.Table.from_pylist(rows), folder / "rollouts" / f"step_{step}.parquet")
    return folder


def record(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_lengths_are_counted_right_against_wrong(tmp_path: Path) -> None:
    notes: list[str] = []
    early, late = length_histograms([read_run(with_rollouts(tmp_path / "runs", "a"), "a")], notes)
    assert (early.title, late.title) == ("Lengths, updates 1 to 2", "Lengths, updates 7 to 8")
    for figure, steps in ((early, (1, 2)), (late, (7, 8))):
        for trace, odd in zip(figure.data, (0, 1), strict=True):
            lengths = [i + step for step in steps for i in range(10) if i % 2 == odd]
            at = np.array(trace["x"])
            half = np.array(trace["width"]) / 2
            expected = [sum(low <= n < high for n in lengths) for low, high in zip(at - half, at + half, strict=True)]
            expected[-1] += sum(n == at[-1] + half[-1] for n in lengths)  # the last bin has both of its ends
            assert trace["y"] == expected
            assert sum(trace["y"]) == len(lengths)
    assert notes == []


def test_lengths_of_several_runs_are_those_of_their_ends(tmp_path: Path) -> None:
    folders = [with_rollouts(tmp_path / "runs", name) for name in ("a", "b")]
    found = length_histograms([read_run(folder, folder.name[-1]) for folder in folders], [])
    assert [figure.title for figure in found] == ["Lengths of a, updates 7 to 8", "Lengths of b, updates 7 to 8"]


def test_unreadable_rollouts_become_notes(tmp_path: Path) -> None:
    folder = with_rollouts(tmp_path / "runs", "a", updates=1)
    (folder / "rollouts" / "step_1.parquet").write_bytes(b"half")
    notes: list[str] = []
    assert length_histograms([read_run(folder, "a")], notes) == []
    assert notes == ["a: completions of update 1 are unreadable (ArrowInvalid)"]


def test_kinds_of_answers_are_stacked_to_one(tmp_path: Path) -> None:
    folder = made.training(tmp_path / "runs", "a")
    shares = {"val/logic_error_frac": 0.3, "val/format_error_frac": 0.15, "val/truncated_frac": 0.05}
    record(folder, [{"val/version": version, "val/accuracy": 0.5, **shares} for version in (0, 4, 8)])
    (figure,) = kinds_over_time([run := read_run(folder, "a")])
    assert [sum(trace["y"][at] for trace in figure.data) for at in range(3)] == pytest.approx([1, 1, 1])
    assert figure.data[0]["x"] == [0, 4, 8]
    assert kinds_over_time([run] * 5) == []  # the panels of single kinds remain


def test_a_band_lies_between_its_metrics_and_lines_are_told_apart(tmp_path: Path) -> None:
    folder = made.training(tmp_path / "runs", "a")
    record(
        folder,
        [
            {
                "step": step,
                "train/ratio_min": 1 / step,
                "train/ratio_mean": 1.0,
                "train/ratio_max": float(step),
                "train/clip_frac": 0.3 * step,
                "train/clip_frac_low": 0.1 * step,
                "train/clip_frac_high": 0.2 * step,
            }
            for step in (1, 2)
        ],
    )
    figures = {figure.title: figure for group in panels([read_run(folder, "a")]) for figure in group.figures}
    low, high, mean = figures["Importance ratio"].data
    assert (low["y"], high["y"], mean["y"]) == ([1, 0.5], [1, 2], [1, 1])
    assert high["fill"] == "tonexty"
    clip = figures["Clip fraction"]
    assert [trace["line"]["dash"] for trace in clip.data] == ["solid", "dash", "dot"]
    assert clip.caption.count("dotted: ") == 1
    assert clip.words[1].startswith("a, ratio below 1: 0.1 at update 1, 0.2 at 2")


def test_a_metric_that_is_constant_in_each_run_but_differs_is_drawn(tmp_path: Path) -> None:
    folders = [made.training(tmp_path / "runs", name) for name in ("a", "b")]
    for folder, rate in zip(folders, (1e-5, 1e-6), strict=True):
        record(folder, [{"step": step, "train/lr": rate, "train/epochs": 1.0} for step in (1, 2)])
    (group,) = panels([read_run(folder, folder.name) for folder in folders])
    assert [figure.title for figure in group.figures] == ["Learning rate"]
    assert group.constant == ("epochs on a batch: 1",)


def test_long_runs_are_averaged(tmp_path: Path) -> None:
    folder = made.training(tmp_path / "runs", "a", updates=1000)
    runs = [read_run(folder, "a")]
    for count in (1, 4):
        reward = panels(runs * count)[0].figures[0]
        assert all(len(trace["x"]) <= MAX_POINTS // count for trace in reward.data)
        size = -(-1000 // (MAX_POINTS // count))  # updates per point
        assert (reward.data[0]["x"][0], reward.data[0]["y"][0]) == (size, pytest.approx((size + 1) / 2000))


def test_an_evaluation_has_no_training_section(tmp_path: Path) -> None:
    assert training_groups([read_run(made.evaluation(tmp_path / "runs"), "eval")], []) == []
