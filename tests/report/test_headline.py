"""Headings of runs of each method, finished or not, of several runs, and of evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grpo_gsm8k.report.collect import read_run
from grpo_gsm8k.report.data_name import data_name
from grpo_gsm8k.report.headline import headline, method_of
from grpo_gsm8k.report.material import Run
from grpo_gsm8k.tracking.saved_config import compose_values
from tests.report import runs as made

METHODS = {
    "reinforce": "REINFORCE",
    "reinforce_baseline": "REINFORCE with baseline",
    "grpo": "GRPO",
    "dr_grpo": "Dr. GRPO",
    "dapo": "DAPO",
    "rloo": "RLOO",
    "gspo": "GSPO",
    "cispo": "CISPO",
    "ppo": "PPO",
}


def of(folder: Path, price: float = 2.0) -> str:
    return headline([read_run(folder, folder.name)], price)


def with_config(**config: Any) -> Run:
    return Run("r", Path(), str(config.get("command", "policy_gradient")), config, {}, {}, (), (), None)


@pytest.mark.parametrize(("option", "title"), METHODS.items())
def test_each_option_has_its_name(option: str, title: str) -> None:
    values = compose_values(["command=policy_gradient", f"policy_gradient={option}"])
    assert method_of(with_config(**values)) == title


def test_a_run_has_method_data_result_time_and_price(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    gpu = {"actor": {"device": "cuda:0"}, "learner": {"device": "cuda:0", "lora": {"enabled": True}}}
    gsm8k = {"data": {"source": "hub", "folder": "gsm8k", "name": "main"}}
    assert of(made.training(runs, "a", right=19, **gpu, **gsm8k)) == (
        "GRPO with LoRA on GSM8K: 25.0 → 95.0 %, 1 h 00 min, $2.00"
    )
    assert of(made.training(runs, "b", command="sft")) == "SFT on sums: 25.0 → 50.0 %, 1 h 00 min"
    assert of(made.training(runs, "c", **gpu), 0.001).endswith(", under $0.01")


def test_a_better_validation_before_the_last_is_named(tmp_path: Path) -> None:
    folder = made.training(tmp_path / "runs", "a")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(made.validation(3, 0.8)) + "\n")
    assert of(folder) == "GRPO on sums: 25.0 → 50.0 % (best 80.0 %), 1 h 00 min"


def test_an_unfinished_run_says_how_far_it_came(tmp_path: Path) -> None:
    folder = made.training(tmp_path / "runs", "a")
    summary = {"status": "interrupted", "total_steps": 60, "wall_seconds": 100.0}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert of(folder) == "GRPO on sums (interrupted, 6 of 60 updates): 25.0 → 50.0 %, 1 min 40 s"
    (folder / "summary.json").unlink()
    (folder / "metrics.jsonl").write_text(json.dumps(made.validation(0, 0.25)) + "\n")
    assert of(folder) == "GRPO on sums (not finished, 0 updates): 25.0 % after 0 updates, 1 min 30 s"


def test_a_run_without_validations_or_anything_else() -> None:
    assert headline([with_config()], 1.0) == "Policy gradient (not finished, 0 updates): 0 updates"
    assert headline([with_config(command="other")], 1.0).startswith("Run (not finished")


def test_several_runs(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    folders = [made.training(runs, "a", right=12), made.training(runs, "b", right=19, command="sft")]
    assert headline([read_run(f, f.name) for f in folders], 1.0) == (
        "GRPO and SFT, 2 runs on sums: 60.0 to 95.0 % at the end, 2 h 00 min in total"
    )
    folders.append(made.evaluation(runs))
    assert headline([read_run(f, f.name) for f in folders], 1.0) == (
        "GRPO and SFT, 2 runs and 1 evaluation on sums: 60.0 to 95.0 % at the end"
    )


def test_evaluations(tmp_path: Path) -> None:
    folder = made.evaluation(tmp_path / "runs")
    assert of(folder) == "Evaluation of 2 models on sums (test): 80.0 % at best, 4 settings"
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"results": summary["results"][:1]}))
    assert of(folder) == "owner/small on sums (test): 20.0 %"
    (folder / "summary.json").unlink()
    assert of(folder) == "Evaluation on sums (test) (not finished)"


def test_data_is_named_by_its_folder_or_file() -> None:
    file = {"source": "jsonl", "folder": "jsonl"}
    assert data_name({"data": {**file, "train_path": "/x/gsm8k/train.jsonl"}}) == "GSM8K"
    assert data_name({"data": {**file, "train_path": "/x/mine/train.jsonl"}}) == "mine/train.jsonl"
    assert data_name({"data": {**file, "folder": "turkish", "train_path": "/x/a.jsonl"}}) == "turkish"
    assert data_name({"data": {"source": "hub", "folder": "math", "name": ["algebra", "geometry"]}}) == "MATH"
    assert data_name({}) == ""
