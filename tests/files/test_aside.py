"""Atomic files and folders: whole or absent, private modes, no leftovers."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grpo_gsm8k.errors import DiskFullError, UserError
from grpo_gsm8k.files.aside import (
    file_written_aside,
    make_private,
    make_private_folder,
    replace_folder,
    write_atomically,
    written_aside,
)


@pytest.fixture
def umask_zero() -> Iterator[None]:
    previous = os.umask(0)
    yield
    os.umask(previous)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_modes_hold_under_umask_zero(tmp_path: Path, umask_zero: None) -> None:
    folder = tmp_path / "private"
    make_private_folder(folder)
    assert mode_of(folder) == 0o700
    write_atomically(folder / "a", b"x", 0o600)
    (folder / "sub").mkdir()
    (folder / "sub" / "b").write_text("y")
    assert mode_of(folder / "sub" / "b") == 0o666  # the umask really is 000
    make_private(folder)
    assert [mode_of(folder / name) for name in ("a", "sub", "sub/b")] == [0o600, 0o700, 0o600]


def test_write_atomically_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    write_atomically(path, "old")

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DiskFullError, match=r"state was not written: No space left on device, 3 bytes are needed"):
        write_atomically(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["state"]
    assert path.read_text() == "old"


def test_write_atomically_survives_kill(tmp_path: Path) -> None:
    path = tmp_path / "state"
    code = (
        "import sys; from pathlib import Path; from grpo_gsm8k.files.aside import write_atomically\n"
        "while True:\n  for c in b'ab': write_atomically(Path(sys.argv[1]), bytes([c]) * 3_000_000)\n"
    )
    for delay in (0.0, 0.004, 0.011):
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        seen = path.stat().st_mtime_ns if path.exists() else 0
        while not path.exists() or path.stat().st_mtime_ns == seen:
            time.sleep(0.001)
            assert process.poll() is None
        time.sleep(delay)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        content = path.read_bytes()
        assert len(content) == 3_000_000
        assert len(set(content)) == 1


@pytest.mark.parametrize("durable", [False, True])
def test_replace_folder(tmp_path: Path, durable: bool) -> None:
    final = tmp_path / "step_5"
    (tmp_path / ".step_5.01234567.old").mkdir()  # left by an earlier crash
    for text in ("first", "second"):
        aside = tmp_path / ".aside"
        aside.mkdir()
        (aside / text).write_text(text)
        replace_folder(aside, final, durable)
        assert [p.name for p in final.iterdir()] == [text]
        assert [p.name for p in tmp_path.iterdir()] == ["step_5"]


def test_sole_writer_removes_the_leftovers_of_a_killed_writer(tmp_path: Path) -> None:
    target = tmp_path / "model"
    code = (
        "import os, signal, sys; from pathlib import Path; from grpo_gsm8k.files.aside import written_aside\n"
        "with written_aside(Path(sys.argv[1])) as folder:\n"
        "  (folder / 'half').touch(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)], check=False).returncode == -signal.SIGKILL
    assert not target.exists()
    assert len(list(tmp_path.iterdir())) == 1
    with written_aside(target, sole_writer=True) as folder:
        (folder / "whole").touch()
        assert [path for path in tmp_path.iterdir() if path != folder] == []
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "whole"]


def test_written_aside_leaves_the_old_folder_after_an_error(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with written_aside(target, private=True) as folder:
        (folder / "old").touch()
    assert (mode_of(target), mode_of(target / "old")) == (0o700, 0o600)
    with pytest.raises(KeyError), written_aside(target):
        raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(UserError, match="link"), written_aside(tmp_path / "link"):
        pass


def test_file_written_aside(tmp_path: Path) -> None:
    target = tmp_path / "new" / "data.parquet"
    with file_written_aside(target) as path:
        path.write_text("first")
        assert not target.exists()
    with pytest.raises(FileNotFoundError), file_written_aside(target):
        pass  # the writer wrote nothing
    with pytest.raises(UnicodeError), file_written_aside(target) as path:
        path.write_bytes(b"second" + "ü".encode("ascii"))
    assert target.read_text() == "first"
    assert list(target.parent.iterdir()) == [target]
