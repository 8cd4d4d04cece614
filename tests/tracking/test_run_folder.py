"""Run folders: unique names, lookup, and no access outside of the root."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.tracking import run_folder
from grpo_gsm8k.tracking.run_folder import RunFolder

NOON = datetime(2030, 1, 2, 12, 0, 0)


def make_run(artifacts: Path, name: str, steps: tuple[int, ...] = (), hour: int = 12) -> RunFolder:
    run = run_folder.create(artifacts, name, lambda: NOON.replace(hour=hour))
    for step in steps:
        (run.checkpoints / f"step_{step}").mkdir()
        (run.checkpoints / f"step_{step}" / "manifest.json").write_text("{}")
    return run


def test_create_is_unique_within_a_second(tmp_path: Path) -> None:
    names = [make_run(tmp_path, "demo").path.name for _ in range(3)]
    assert names == ["20300102-120000_demo", "20300102-120000_demo-2", "20300102-120000_demo-3"]
    assert RunFolder(tmp_path / "runs" / names[0]).checkpoints.is_dir()


@pytest.mark.parametrize("name", ["../../x", "a/b", "", ".hidden", "x" * 65, "a\n"])
def test_create_refuses_names_that_leave_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="name="):
        make_run(tmp_path / "artifacts", name)
    assert list(tmp_path.iterdir()) == []


def test_a_planted_symlink_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    (artifacts / "runs").symlink_to(outside)
    for call in (lambda: make_run(artifacts, "demo"), lambda: run_folder.find(artifacts, "latest")):
        with pytest.raises(UserError, match="symlink"):
            call()
    assert list(outside.iterdir()) == []
    (artifacts / "runs").unlink()
    run = make_run(artifacts, "demo", (1,))
    run.metrics_jsonl.symlink_to(outside / "file")
    with pytest.raises(UserError, match=r"metrics.jsonl is a symlink"):
        run_folder.find(artifacts, "latest")


PLANTED = ["logs", "logs/learner.log", "checkpoints", "checkpoints/step_1", "checkpoints/step_1/model", "rollouts"]
PLANTED += ["rollouts/step_1.parquet", "validation", "records", "config.yaml", "manifest.json", "wandb"]


@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("name", PLANTED)
def test_a_link_anywhere_in_a_run_folder_is_refused(tmp_path: Path, name: str, dangling: bool) -> None:
    run = make_run(tmp_path, "demo", (1,))
    (run.path / name).parent.mkdir(exist_ok=True)
    if (run.path / name).exists():
        shutil.rmtree(run.path / name)
    outside = tmp_path / "outside"
    if not dangling:
        outside.mkdir()
    (run.path / name).symlink_to(outside)
    with pytest.raises(UserError, match=rf"{name} is a symlink"):
        run_folder.find(tmp_path, run.path.name)


def test_the_links_of_wandb_are_its_own(tmp_path: Path) -> None:
    run = make_run(tmp_path, "demo", (1,))
    (run.path / "wandb").mkdir()
    (run.path / "wandb" / "latest-run").symlink_to("offline-run-1")
    assert run_folder.find(tmp_path, run.path.name)[1] == 1


def test_the_newest_run_with_a_damaged_configuration_is_not_passed_over(tmp_path: Path) -> None:
    make_run(tmp_path, "old", (1,), hour=10).config_yaml.write_text("command: sft\n")
    make_run(tmp_path, "new", (1,), hour=11).config_yaml.write_text("")
    with pytest.raises(UserError, match=r"new/config\.yaml is cut short or damaged"):
        run_folder.find(tmp_path, "latest", "sft")


def test_find_latest_is_the_newest_run_with_a_complete_checkpoint(tmp_path: Path) -> None:
    make_run(tmp_path, "old", (5,), hour=9)
    middle = make_run(tmp_path, "middle", (200, 1000, 20), hour=10)
    newest = make_run(tmp_path, "newest", hour=11)
    (newest.checkpoints / "step_3000").mkdir()  # no manifest: not complete
    (middle.checkpoints / ".step_2000.tmp").mkdir()
    (middle.checkpoints / "step_0900").mkdir()
    assert run_folder.find(tmp_path, "latest") == (RunFolder(middle.path.resolve()), 1000)
    assert run_folder.checkpoint_steps(middle) == [20, 200, 1000]
    assert run_folder.find(tmp_path, newest.path.name)[1] is None


def test_latest_within_one_second_compares_suffixes_as_numbers(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "demo", (1,)) for _ in range(11)]
    assert run_folder.find(tmp_path, "latest")[0].path.name == runs[-1].path.name == "20300102-120000_demo-11"


def test_find_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, "demo", (3, 12))
    monkeypatch.chdir(tmp_path)
    found = RunFolder(run.path.resolve())
    assert run_folder.find(Path(), f"runs/{run.path.name}") == (found, 12)
    assert run_folder.find(tmp_path, str(run.checkpoints / "step_3")) == (found, 3)


def test_errors_of_find_name_the_fix(tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    with pytest.raises(UserError, match="start without resume_from"):
        run_folder.find(artifacts, "latest")
    run = make_run(artifacts, "demo", (3,))
    for spec, message in {
        str(run.checkpoints / "step_4"): r"choose one of those in .*step_3",
        "no_such_run": r"not a run folder.*or use latest",
        "/etc": r"set artifacts=FOLDER",
        str(artifacts / "runs" / ".." / ".." / "x"): r"set artifacts=FOLDER",
        str(artifacts / "runs"): r"set artifacts=FOLDER",
    }.items():
        with pytest.raises(UserError, match=message):
            run_folder.find(artifacts, spec)


def test_no_heavy_import() -> None:
    modules = ["tracking.tracker", "terminal.console", "tracking.manifest", "files.checksums"]
    code = "import sys, " + ", ".join(f"grpo_gsm8k.{name}" for name in modules) + "\n"
    code += "print(sorted({'torch', 'vllm', 'transformers', 'wandb', 'rich', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_name_without_its_time_is_the_newest_run_of_that_name(tmp_path: Path) -> None:
    make_run(tmp_path, "main", (5,), hour=9)
    newest = make_run(tmp_path, "main", (2,), hour=10)
    make_run(tmp_path, "other", (7,), hour=11)
    make_run(tmp_path, "main-b", (8,), hour=12)
    assert run_folder.find(tmp_path, "main") == (RunFolder(newest.path.resolve()), 2)
    with pytest.raises(UserError, match="not a run folder"):
        run_folder.find(tmp_path, "mai")
