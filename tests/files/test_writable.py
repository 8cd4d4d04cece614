"""Folders that cannot be written are refused with the key, before anything is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli import COMMANDS, main
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.files.writable import check_folder


def places(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "to_file").symlink_to(tmp_path / "file")
    return {
        "file": tmp_path / "file",
        "below a file": tmp_path / "file" / "a" / "b",
        "dangling link": tmp_path / "dangling",
        "below a dangling link": tmp_path / "dangling" / "a",
        "loop": tmp_path / "loop",
        "link to a file": tmp_path / "to_file",
        "read-only": Path("/proc/none"),  # even for a superuser
        "too long": tmp_path / ("x" * 300),
    }


NAMES = ["file", "below a file", "dangling link", "below a dangling link", "loop", "link to a file", "read-only"]


@pytest.mark.parametrize("name", [*NAMES, "too long"])
def test_refused(tmp_path: Path, name: str) -> None:
    path = places(tmp_path)[name]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"^artifacts=/") as caught:
        check_folder("artifacts", path)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_accepted_and_left_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for path in (tmp_path / "folder", tmp_path / "link", tmp_path / "new" / "one", Path("artifacts")):
        check_folder("artifacts", path)
    assert sorted(os.listdir(tmp_path)) == ["folder", "link"]
    assert os.listdir(tmp_path / "folder") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not stop a superuser")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="Permission denied"):
            check_folder("artifacts", tmp_path / "a")
    finally:
        tmp_path.chmod(0o700)


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments, "preset=cpu_demo"]) == 2
    err = capfd.readouterr().err.strip().splitlines()
    assert len(err) == 1, err
    return err[0]


@pytest.mark.parametrize("command", sorted(COMMANDS))
@pytest.mark.parametrize("name", ["file", "below a file", "dangling link", "read-only"])
def test_every_command_refuses_artifacts(command, name, tmp_path, capfd) -> None:
    line = refused(capfd, f"command={command}", f"artifacts={places(tmp_path)[name]}", "actor.replicas=1")
    assert line.startswith("error: artifacts=")


@pytest.mark.parametrize(
    ("command", "key"),
    [("report", "report.output"), ("merge", "output"), ("sft", "shm"), ("policy_gradient", "shm")],
)
@pytest.mark.parametrize("name", ["file", "below a file", "dangling link", "read-only"])
def test_other_folders(command, key, name, tmp_path, capfd) -> None:
    path = places(tmp_path)[name]
    line = refused(capfd, f"command={command}", f"artifacts={tmp_path / 'a'}", f"{key}={path}", "data.train_size=600")
    assert f"{key}=" in line


@pytest.mark.parametrize("name", ["runs", "models", "reports"])
def test_a_file_where_a_folder_in_artifacts_is_written(name, tmp_path, capfd) -> None:
    (tmp_path / name).write_text("x")
    assert f"artifacts={tmp_path}/{name} is not a folder" in refused(capfd, "command=data", f"artifacts={tmp_path}")


@pytest.mark.parametrize("bad", ["", "folder", "absent", "binary"])
@pytest.mark.parametrize(
    ("command", "key", "more"),
    [
        ("data", "data.train_path", ["data=jsonl", "data.test_path=/dev/null"]),
        ("preprocess", "preprocess.path", ["preprocess.source=jsonl", "data.train_size=600"]),
        ("eval", "eval.input_path", ["eval.suite=generate"]),
        ("eval", "eval.data_path", ["data.train_size=600"]),
    ],
)
def test_input_files(command, key, more, bad, tmp_path, capfd) -> None:
    path = tmp_path / "input"
    if bad == "folder":
        path.mkdir()
    elif bad != "absent":
        path.write_bytes(b"\xff\x00\xfe" if bad == "binary" else b"")
    code = main([f"command={command}", "preset=cpu_demo", *more, f"{key}={path}", f"artifacts={tmp_path / 'a'}"])
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert code == 2, last
    assert str(path) in last or key in last
