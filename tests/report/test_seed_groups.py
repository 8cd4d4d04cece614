"""Groups of runs that differ in their seeds: what is one method, what is left out and named, tables and curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from grpo_gsm8k.evaluation.statistics.hierarchical import method_interval
from grpo_gsm8k.report import collect, panels, seed_curves, seed_keys
from grpo_gsm8k.report.pairs import SEED
from grpo_gsm8k.report.render import render_markdown
from grpo_gsm8k.report.seed_groups import SeedGroups, group_runs
from grpo_gsm8k.report.write_report import build
from tests.report import runs as made

RLOO = {"policy_gradient": {"loss_type": "reinforce_with_baseline", "advantage": "leave_one_out"}}
GRPO = {"policy_gradient": {"loss_type": "grpo_clip", "advantage": None}}


def methods(tmp_path: Path, seeds: int = 3, **more: Any) -> list[Path]:
    """Write runs of two methods; the answers of a seed differ in one item."""
    runs = tmp_path / "runs"
    return [
        made.training(runs, f"{name}_{seed}", right=right + seed, seed=seed, **settings, **more)
        for name, right, settings in (("grpo", 8, GRPO), ("rloo", 14, RLOO))
        for seed in range(seeds)
    ]


def grouped(folders: list[Path]) -> SeedGroups:
    return group_runs(collect.collect(folders, None).runs)


def change(folder: Path, **changes: Any) -> None:
    """Change the saved configuration of a run."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | changes))


def table(found: Any, at: int) -> list[dict[str, str]]:
    return [dict(zip(found.seeds[at].columns, row, strict=True)) for row in found.seeds[at].rows]


def test_runs_that_differ_in_seed_alone_are_one_method(tmp_path: Path) -> None:
    folders = methods(tmp_path)
    # Where a run is recorded and how it is watched does not matter; nor do the settings of other commands.
    ignored = {"sweep": "x", "artifacts": "/elsewhere", "wandb": {"mode": "off"}, "sft": {"epochs": 9}}
    change(folders[1], **ignored, actor={"device": "cpu", "replicas": 1, "start_timeout_s": 1.0, "cores": [1]})
    found = grouped(folders)
    assert [(m.name, m.data, m.seeds) for m in found.methods] == [
        ("grpo", "sums, val, 20 items", ("0", "1", "2")),
        ("rloo", "sums, val, 20 items", ("0", "1", "2")),
    ]
    assert found.notes == ()


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("lr", {"learner": {"device": "cpu", "lr": 1e-5}}),
        ("updates", {"policy_gradient": {"loss_type": "grpo_clip", "advantage": None, "updates": 7}}),
        ("threads", {"actor": {"device": "cpu", "replicas": 1, "threads": 7}}),
        ("not_known_today", {"not_known_today": 1}),
    ],
)
def test_any_other_setting_makes_another_method_and_is_named(tmp_path: Path, key: str, changes: dict[str, Any]) -> None:
    folders = methods(tmp_path)
    change(folders[2], **changes)
    found = grouped(folders)
    assert [m.seeds for m in found.methods] == [("0", "1"), ("2",), ("0", "1", "2")]
    assert f"{key}=" in found.methods[0].name
    assert f"{key}=" in found.methods[1].name
    differing = table(build(collect.collect(folders, None), 2.0, "T"), 2)
    assert any(row["Setting"].endswith(key) for row in differing)


def test_other_inputs_make_another_method(tmp_path: Path) -> None:
    folders = methods(tmp_path)
    for at, folder in enumerate(folders):
        inputs = {"prepared data": "aa" if at != 2 else "bb"}
        first = {"inputs": {"prepared data": "zz"}, "resumes": [{"inputs": inputs}], "git": {"sha": "c" * 40}}
        (folder / "manifest.json").write_text(json.dumps(first))
    found = grouped(folders)
    assert [m.seeds for m in found.methods] == [("0", "1"), ("2",), ("0", "1", "2")]
    assert found.methods[1].name == "grpo, prepared data=bb"


def test_runs_without_a_result_are_named_and_never_mixed_in(tmp_path: Path) -> None:
    folders = methods(tmp_path, seeds=5)
    (folders[0] / "summary.json").write_text(json.dumps({"status": "interrupted", "steps": 6, "total_steps": 9}))
    (folders[1] / "summary.json").write_text(json.dumps({"status": "done", "steps": 8, "total_steps": 8}))
    (folders[2] / "validation" / "step_6.parquet").write_bytes(b"half")
    (folders[3] / "summary.json").unlink()
    change(folders[5], command="unknown")
    found = grouped(folders)
    assert [m.seeds for m in found.methods] == [("4",), ("1", "2", "3", "4")]
    assert found.notes == (
        "grpo_0: in no comparison of methods: it is not finished (interrupted)",
        "grpo_1: in no comparison of methods: its last validation is of update 6, its last update is 8",
        "grpo_2: in no comparison of methods: no readable answers of its validation 6",
        "grpo_3: in no comparison of methods: it is not finished (no summary.json)",
        "rloo_0: in no comparison of methods: it is a run of command=unknown",
    )


def test_seeds_with_other_items_are_refused_with_the_setting(tmp_path: Path) -> None:
    drawn = {"loss_type": "grpo_clip", "advantage": None, "eval_limit": "random:19"}
    folders = methods(tmp_path)
    for at, folder in enumerate(folders[:3]):
        change(folder, policy_gradient=drawn)
        path = folder / "validation" / "step_6.parquet"
        rows = [row for i, row in enumerate(made.pq.read_table(path).to_pylist()) if i != at]
        made.pq.write_table(made.pa.Table.from_pylist(rows), path)
    found = grouped(folders)
    assert [m.name for m in found.methods] == ["rloo"]
    assert found.notes == (
        "grpo: grpo_0 and grpo_1 answered different items (policy_gradient.eval_limit=random:19 draws by the seed: "
        "give a number): in no comparison of methods",
    )


def test_methods_with_other_items_are_not_compared(tmp_path: Path) -> None:
    folders = methods(tmp_path)
    for folder in folders[3:]:
        change(folder, policy_gradient=RLOO["policy_gradient"] | {"eval_limit": 19})
        path = folder / "validation" / "step_6.parquet"
        made.pq.write_table(made.pq.read_table(path).slice(0, 19), path)
    [row] = table(build(collect.collect(folders, None), 2.0, "T"), 1)
    assert row["B minus A, points"] == "not compared: different items (policy_gradient.eval_limit)"


def test_the_same_seed_twice_counts_once(tmp_path: Path) -> None:
    folders = methods(tmp_path)
    again = made.training(tmp_path / "runs", "again", right=3, seed=1, **GRPO)
    found = grouped([*folders, again])
    assert found.methods[0].seeds == ("0", "1", "2")
    assert found.methods[0].replicates[1].run.folder == again
    assert found.notes == (
        f"{folders[1].name} and {again.name} have the same settings and the seed 1: only the newer one counts",
    )


def test_the_tables_show_accuracy_interval_and_cost(tmp_path: Path) -> None:
    gpus = {"actor": {"device": "cuda:0", "replicas": 1}, "learner": {"device": "cuda:1", "lr": 1e-6}}
    report = build(collect.collect(methods(tmp_path, **gpus), None), 2.0, "Title")
    grpo, _ = table(report, 0)
    scores = np.array([[float(item < right) for item in range(20)] for right in (8, 9, 10)])
    interval = method_interval(scores, SEED)
    assert grpo["Accuracy"] == "45.0 %"
    assert grpo["95 % interval"] == f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    assert (grpo["Covers"], grpo["Spread"], grpo["By seed"]) == ("seeds and items", "5.0", "40.0, 45.0, 50.0")
    assert (grpo["Seeds"], grpo["At start"], grpo["Tokens per run"]) == ("3: 0, 1, 2", "25.0 %", "6000")
    assert (grpo["Hours per run"], grpo["Dollars per run"], grpo["Dollars in total"]) == ("1", "$4.00", "$12.00")
    [pair] = table(report, 1)
    assert pair["B minus A, points"].startswith("+30.0 [")
    assert pair["Paired by"] == "item and seed"
    assert {row["Setting"] for row in table(report, 2)} == {"policy_gradient.loss_type", "policy_gradient.advantage"}
    assert "grpo on sums, val, 20 items: 25.0 % to 45.0 %" in report.findings[0]
    assert "What differs between the methods" in render_markdown(report)


def test_one_seed_says_that_the_interval_covers_items_only(tmp_path: Path) -> None:
    report = build(collect.collect(methods(tmp_path, seeds=1), None), 2.0, "Title")
    assert [row["Covers"] for row in table(report, 0)] == ["items only", "items only"]
    assert report.seeds[1].rows == ()  # the table of runs compares single runs
    single = build(collect.collect(methods(tmp_path / "one", seeds=1)[:1], None), 2.0, "Title")
    assert not any(t.rows for t in single.seeds)


def test_curves_and_panels_have_a_mean_and_a_band_per_method(tmp_path: Path) -> None:
    folders = methods(tmp_path)
    lines = (folders[1] / "metrics.jsonl").read_text().splitlines()
    first = json.loads(lines[0]) | {"train/entropy": 4.0}
    (folders[1] / "metrics.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    runs = collect.collect(folders, None).runs
    groups = group_runs(runs)
    drawn = seed_curves.drawn_runs(runs, groups)
    assert [run.name for run in drawn] == ["grpo (3 seeds)", "rloo (3 seeds)"]
    assert not any(run.folder.exists() for run in drawn)  # no file of one seed can be shown as those of all
    curve = seed_curves.method_curves(drawn, groups)[0]
    named = [trace for trace in curve.data if "name" in trace]
    assert [(trace["name"], trace["y"]) for trace in named] == [
        ("grpo (3 seeds)", [0.25, 0.45]),
        ("rloo (3 seeds)", [0.25, 0.75]),
    ]
    assert "over seeds and items" in curve.caption
    shown = [figure for group in seed_curves.method_panels(drawn, groups, panels.panels) for figure in group.figures]
    entropy = next(figure for figure in shown if figure.id == "panel-train-entropy")
    low, high, mean = entropy.data[:3]
    assert mean["y"][0] == pytest.approx(2.0)  # of 1, 4 and 1, whose standard deviation is the root of 3
    assert (low["y"][0], high["y"][0]) == (pytest.approx(2 - 3**0.5, abs=1e-4), pytest.approx(2 + 3**0.5, abs=1e-4))
    unfinished = [*folders[:2], made.training(tmp_path / "runs", "cut", seed=2, **GRPO)]
    (unfinished[2] / "summary.json").unlink()
    others = collect.collect(unfinished, None).runs
    assert [run.name for run in seed_curves.drawn_runs(others, group_runs(others))] == ["grpo (2 seeds)", "cut"]


def evaluation(runs: Path, name: str, seed: int, models: dict[str, int]) -> Path:
    """Write an evaluation over 20 items of models, of which so many are right."""
    folder = runs / f"20260103-00000{seed}_{name}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(made.config("eval", name, seed=seed)))
    asked = {"prompting": "zero_shot", "temperature": 0.0, "sample": 0, "text": "", "extracted": None, "tokens": 5}
    lines = [
        {**asked, "model": model, "item_id": f"q{i}", "question": f"{i}?", "gold": "1"}
        | {"kind": "correct" if i < right else "logic"}
        for model, right in models.items()
        for i in range(20)
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "summary.json").write_text(json.dumps({"kind": "eval", "wall_seconds": 60.0, "results": []}))
    return folder


def test_evaluations_of_the_models_of_several_seeds_are_one_method(tmp_path: Path) -> None:
    trained = methods(tmp_path)
    paths = [str(folder / "checkpoints" / "step_6" / "model") for folder in trained]
    one = evaluation(tmp_path / "runs", "all", 0, dict(zip(paths, (8, 9, 10, 14, 15, 16), strict=True)))
    found = grouped([one])
    assert [(m.name, m.data, m.seeds) for m in found.methods] == [
        (f"{name}, zero_shot, T=0", "sums, test, 20 items", ("0 of model 0", "0 of model 1", "0 of model 2"))
        for name in ("grpo", "rloo")
    ]
    report = build(collect.collect([one], None), 2.0, "T")
    assert table(report, 1)[0]["Paired by"] == "item and seed"
    assert table(report, 0)[0]["Hours per run"] == "–"  # not recorded by model
    again = [evaluation(tmp_path / "runs", "sampled", seed, {"owner/model": 9 + seed}) for seed in (1, 2)]
    [method] = grouped(again).methods
    assert (method.name, method.seeds) == ("owner/model, zero_shot, T=0", ("1", "2"))


def test_checkpoints_of_one_run_are_not_seeds(tmp_path: Path) -> None:
    [trained] = methods(tmp_path, seeds=1)[:1]
    paths = {str(trained / "checkpoints" / f"step_{step}" / "model"): step for step in (3, 6)}
    found = grouped([evaluation(tmp_path / "runs", "two", 0, paths)])
    assert [m.name.partition(", step")[0] for m in found.methods] == [
        f"grpo, zero_shot, T=0, update {step}" for step in (3, 6)
    ]


def test_runs_from_models_of_other_seeds_are_one_method(tmp_path: Path) -> None:
    tuned = [made.training(tmp_path / "runs", f"sft_{seed}", command="sft", seed=seed) for seed in (0, 1)]
    further = [
        made.training(
            tmp_path / "runs",
            f"grpo_{seed}",
            seed=seed,
            model={"path": str(folder / "checkpoints" / "step_6" / "model"), "init": "pretrained"},
            **GRPO,
        )
        for seed, folder in enumerate(tuned)
    ]
    assert [(m.name, m.seeds) for m in grouped(further).methods] == [("grpo", ("0", "1"))]
    change(further[1], seed=0)
    assert [m.seeds for m in grouped(further).methods] == [("0", "0 from 1")]
    assert seed_keys.start_of("owner/model").digest == "owner/model"


def test_repetitions_with_one_model_are_not_independent_seeds(tmp_path: Path) -> None:
    trained = methods(tmp_path, seeds=2)[:2]
    models = {str(folder / "checkpoints" / "step_6" / "model"): 8 + at for at, folder in enumerate(trained)}
    twice = [evaluation(tmp_path / "runs", "sampled", seed, models) for seed in (1, 2)]
    found = grouped(twice)
    assert found.methods[0].seeds == ("2 of model 0", "2 of model 1")
    names = f"{twice[0].name} and {twice[1].name}"
    assert found.notes == tuple(
        f"{names} are about one model, that of seed {seed}: only the newer one counts" for seed in (0, 1)
    )


def test_a_setting_changed_by_a_resume_makes_another_method(tmp_path: Path) -> None:
    folders = methods(tmp_path)
    events = [{"key": "learner.lr", "old": 1e-3, "new": 1e-6}, {"key": "budget.max_hours", "old": 1.0, "new": None}]
    with (folders[2] / "events.jsonl").open("a") as file:
        file.writelines(json.dumps({"time": 5, "kind": "config_changed", **event}) + "\n" for event in events)
        file.write('{"time": 6, "kind": "config_changed", "ke')
    found = grouped(folders)
    assert [m.seeds for m in found.methods] == [("0", "1"), ("2",), ("0", "1", "2")]
    assert found.methods[1].name == "grpo, lr=0.001, then 1e-06"


def test_methods_on_several_data_sets_are_rows_and_compared_within_each(tmp_path: Path) -> None:
    sums = methods(tmp_path)
    others = methods(tmp_path / "other", data={"name": "others", "folder": "others"})
    report = build(collect.collect([*sums, *others], None), 2.0, "T")
    assert [(row["Method"], row["Data"].partition(",")[0]) for row in table(report, 0)] == [
        (name, data) for data in ("sums", "others") for name in ("grpo", "rloo")
    ]
    assert [row["Data"].partition(",")[0] for row in table(report, 1)] == ["sums", "others"]
    assert {trace["name"] for trace in report.curves[0].data if "name" in trace} == {
        f"{name}, {data}, val, 20 items (3 seeds)" for data in ("sums", "others") for name in ("grpo", "rloo")
    }


def test_an_evaluation_without_grades_is_named(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "runs", "generated", 0, {})
    assert grouped([folder]).notes == ("generated: in no comparison of methods: it has no graded answers",)


def test_training_and_evaluation_are_different_kinds_of_methods(tmp_path: Path) -> None:
    trained = methods(tmp_path, seeds=2)
    models = {str(folder / "checkpoints" / "step_6" / "model"): 9 for folder in trained}
    report = build(collect.collect([*trained, evaluation(tmp_path / "runs", "all", 0, models)], None), 2.0, "T")
    assert [row["A"] for row in table(report, 1)] == ["grpo", "grpo, zero_shot, T=0"]
    settings = [row["Setting"] for row in table(report, 2)]
    assert settings == ["policy_gradient.loss_type", "policy_gradient.advantage", "model"]
