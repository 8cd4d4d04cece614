"""Files of a run are private unless the user opens them up."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from grpo_gsm8k.files.private import callers_umask, private_files
from tests.conftest import REPO


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_callers_umask_only_takes_away(tmp_path: Path) -> None:
    before = os.umask(0o300)
    try:
        with private_files():
            (tmp_path / "private").mkdir()
            with callers_umask():
                (tmp_path / "shared").mkdir()
        (tmp_path / "after").mkdir()
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("private", "shared", "after")] == [0o400, 0o477, 0o477]


@pytest.mark.parametrize(("words", "allowed"), [((), 0o700), (("private_files=false",), 0o777)])
def test_what_a_command_writes(tmp_path: Path, words: tuple[str, ...], allowed: int) -> None:
    command = [sys.executable, "cli.py", "command=data", "preset=cpu_demo", f"artifacts={tmp_path}/a", *words]
    subprocess.run(command, cwd=REPO, check=True, capture_output=True, umask=0)
    written = list((tmp_path / "a").rglob("*"))
    assert any(path.is_file() for path in written)
    for path in written:
        assert mode(path) == allowed & (0o777 if path.is_dir() else 0o666), path
