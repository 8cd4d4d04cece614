"""Child processes import this package, whatever the working directory contains."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

from grpo_gsm8k.children import own_python
from tests.conftest import REPO


def test_files_of_the_working_directory_are_not_imported(tmp_path: Path) -> None:
    for name in ("grpo_gsm8k", "json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('from the working directory')\n")
    words = own_python.module_command("grpo_gsm8k.command_line.job")  # without arguments: an IndexError, after imports
    environment = own_python.with_package({"PATH": "/usr/bin:/bin"})
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1] == "IndexError: list index out of range"


def test_a_checkout_comes_first_and_an_installed_package_stays_behind_the_standard_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert own_python.with_package({"A": "b"}) == {"A": "b", "PYTHONPATH": str(REPO)}
    assert own_python.with_package({"PYTHONPATH": "/x"}) == {"PYTHONPATH": f"{REPO}:/x"}
    monkeypatch.setattr(own_python, "ROOT", Path(sysconfig.get_path("purelib")).resolve())
    assert own_python.with_package({"PYTHONPATH": "/x"}) == {"PYTHONPATH": "/x"}
