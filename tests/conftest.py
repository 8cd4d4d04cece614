"""Fixtures and paths for all tests: a small random model, lm-eval tasks, and the command line as a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lm_eval_tasks import write_tasks

REPO = Path(__file__).resolve().parent.parent
GSM8K = REPO.parent / "shared" / "data" / "gsm8k"

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two tests run at once


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with the architecture and tokenizer of the embedded model and random weights."""
    from grpo_gsm8k.tiny.network import build_model
    from grpo_gsm8k.tiny.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("model") / "random"
    build_model(seed=1).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with lm-eval tasks, see tests/lm_eval_tasks.py."""
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder)
    return folder


IDLE_START_S = 0.06  # of the process below, with nothing beside it on two cores of 2026


def patience(seconds: float) -> float:
    """Return what takes at most `seconds` on an idle machine, longer by as much as a process starts more slowly now."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-I", "-c", "import json, logging"], check=True)
    return round(seconds * max(1.0, (time.monotonic() - started) / IDLE_START_S), 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the cases that only `make test-all` and `make scale-check` run."""
    if not os.environ.get("ALL_CASES"):
        for item in items:
            if item.get_closest_marker("more"):
                item.add_marker(pytest.mark.skip(reason="make test-all runs it"))


class Cli:
    """Runner of `python cli.py ...` as real processes with their own artifacts folder."""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts

    def arguments(self, *overrides: str) -> list[str]:
        return [sys.executable, str(REPO / "cli.py"), *overrides, f"artifacts={self.artifacts}"]

    def start(self, *overrides: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a process without waiting; its output is captured."""
        return subprocess.Popen(
            self.arguments(*overrides),
            cwd=REPO,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def run(self, *overrides: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a process to the end."""
        process = self.start(*overrides, env=env)
        try:
            out, err = process.communicate(timeout=900)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def runs(self) -> list[Path]:
        """Return the run folders, oldest first."""
        return sorted((self.artifacts / "runs").glob("*"))


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """A command line with its own artifacts folder."""
    return Cli(tmp_path / "artifacts")


def read_jsonl(path: Path) -> list[dict[str, object]]:
    """Read all lines of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@contextmanager
def file_system(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of its own at a new folder, which a test can fill; `size` as mount takes it."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
