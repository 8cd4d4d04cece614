"""What `report.runs` may name: folders, names, sweeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.report.run_lookup import find_baseline, find_runs
from tests.report import runs as made


def test_a_name_stands_for_all_of_its_runs(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first, other, second = (made.training(runs, name) for name in ("mine", "mine-2", "mine"))
    in_sweep = made.training(runs / "sweeps" / "s", "mine")
    # The second run within a second gets a number behind its name.
    numbered = first.rename(first.with_name(f"{first.name}-2"))
    assert find_runs(tmp_path, ["mine"]) == sorted([numbered, second, in_sweep], key=lambda path: path.name)
    assert find_runs(tmp_path, ["mine-2", other.name, str(other)]) == [other]


def test_a_sweep_stands_for_all_of_its_runs(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    inside = [made.training(runs / "sweeps" / "s", name) for name in ("a", "b")]
    made.training(runs, "elsewhere")
    (runs / "sweeps" / "s" / "20260101-000009_started").mkdir()  # no config.yaml yet
    for spec in ("s", "sweeps/s", str(runs / "sweeps" / "s")):
        assert find_runs(tmp_path, [spec]) == inside
    assert find_runs(tmp_path, [inside[1].name]) == [inside[1]]
    assert find_runs(tmp_path, [str(inside[1])]) == [inside[1]]


def test_texts_with_several_meanings_or_none_are_refused(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    made.training(runs, "s")
    made.training(runs / "sweeps" / "s", "a")
    with pytest.raises(UserError, match=r"report\.runs: s is a name of runs and a sweep: give the folder"):
        find_runs(tmp_path, ["s"])
    made.training(runs / "sweeps" / "t", "a")
    with pytest.raises(UserError, match="is a folder in 2 places: give the path"):
        find_runs(tmp_path, ["20260101-000000_a"])
    (runs / "sweeps" / "empty").mkdir()
    for spec in ("empty", "nothing", "sweeps", "", ".", str(runs)):
        with pytest.raises(UserError, match="is not a run"):
            find_runs(tmp_path, [spec])


def test_a_baseline_is_a_run_of_one_method(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    one, other = (made.training(runs / "sweeps" / "s", name, seed=seed) for seed, name in enumerate("ab"))
    assert find_baseline(tmp_path, "s") == other
    assert find_baseline(tmp_path, "a") == one
    made.training(runs / "sweeps" / "s", "c", learner={"device": "cpu", "lr": 1.0})
    with pytest.raises(UserError, match=r"report\.baseline=s stands for runs of 2 methods: name one of them"):
        find_baseline(tmp_path, "s")
