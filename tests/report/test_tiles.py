"""The tiles of a training run, of several, and of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

from grpo_gsm8k.report.collect import collect
from grpo_gsm8k.report.tiles import Tile, tiles
from tests.report import runs as made


def of(*folders: Path) -> dict[str, Tile]:
    return {tile.name: tile for tile in tiles(collect(list(folders), None), 2.0)}


def test_a_training_run(tmp_path: Path) -> None:
    folder = made.training(tmp_path / "runs", "a", right=19)
    found = of(folder)
    assert found["Accuracy at the start"] == Tile("Accuracy at the start", "25.0 %", "[15.0, 35.0], update 0")
    assert found["Change"] == Tile("Change", "+70.0 points", "significantly higher")
    assert found["Updates"].value == "6 of 6"
    assert found["Cost"] == Tile("Cost", "CPU", "no GPU was used")
    assert "Best validation" not in found  # it is the last one
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(made.validation(3, 0.99)) + "\n")
    assert of(folder)["Best validation"].note == "[89.0, 109.0], update 3"


def test_several_runs_and_an_evaluation(tmp_path: Path) -> None:
    gpu = {"actor": {"device": "cuda:0"}, "learner": {"device": "cuda:0"}}
    folders = [made.training(tmp_path / "runs", "a", right=12, **gpu), made.training(tmp_path / "runs", "b", right=19)]
    found = of(*folders)
    assert found["Highest at the end"] == Tile("Highest at the end", "95.0 %", "b")
    assert found["Lowest"] == Tile("Lowest", "60.0 %", "a")
    assert found["Cost"] == Tile("Cost", "$2.00", "1.00 GPU-hours at $2.00")
    evaluation = of(made.evaluation(tmp_path / "runs"))
    assert evaluation["Highest accuracy"].value == "80.0 %"
    assert evaluation["Questions"].value == "20"


def test_an_empty_run_has_few(tmp_path: Path) -> None:
    (folder := tmp_path / "20260101-000000_empty").mkdir()
    (folder / "config.yaml").write_text("command: sft\n")
    assert list(of(folder)) == ["Updates"]
