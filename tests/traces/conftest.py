from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from cli import main
from tests.conftest import Cli
from tests.traces.teacher_server import KEY, Teacher, serve


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    with serve(Teacher()) as running:
        yield running


class TracesCli:
    """`python cli.py command=traces` against a test server, on a few generated sums."""

    def __init__(self, cli: Cli, url: str, problems: int) -> None:
        """Prepare the data in this process, which imports the generating library only once."""
        self._cli = cli
        self.folder = cli.artifacts / "chain_sum_traces"
        data = [
            "data=chain_sum",
            f"data.train_size={problems + 20}",
            "data.val_size=20",
            "data.test_size=20",
            f"artifacts={cli.artifacts}",
        ]
        assert main(["command=data", *data]) == 0
        self._arguments = [
            "command=traces",
            *data[:-1],
            "prompt=base",
            f"traces.base_url={url}",
            "traces.model=sums",
            "traces.api_key_env=TEST_TEACHER_KEY",
            "traces.concurrency=8",
            "traces.max_tokens=128",
        ]
        self._env = {"TEST_TEACHER_KEY": KEY, "NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1"}

    def start(self, *overrides: str, **env: str) -> subprocess.Popen[str]:
        return self._cli.start(*self._arguments, *overrides, env={**self._env, **env})

    def run(self, *overrides: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run to the end in this process, since starting one takes longer than most tests."""
        arguments = [*self._arguments, *overrides, f"artifacts={self._cli.artifacts}"]
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, {**self._env, **env}),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main(arguments)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def run_process(self, *overrides: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run to the end as a separate process."""
        return self._cli.run(*self._arguments, *overrides, env={**self._env, **env})

    def raw(self) -> list[dict[str, Any]]:
        """Return the complete lines of raw.jsonl, without one that is being written or is torn."""
        path = self.folder / "raw.jsonl"
        data = path.read_bytes() if path.exists() else b""
        return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]

    def done(self) -> list[dict[str, Any]]:
        return [record for record in self.raw() if record["error"] is None]

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return report

    def questions(self, split: str) -> set[str]:
        return {problem["question"] for problem in self._problems(split)}

    def ids(self, split: str) -> list[str]:
        return [problem["id"] for problem in self._problems(split)]

    def _problems(self, split: str) -> list[dict[str, str]]:
        path: Path = self._cli.artifacts / "chain_sum" / f"{split}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def traces(cli: Cli, teacher: Teacher) -> TracesCli:
    return TracesCli(cli, teacher.url, 10)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line on stderr, which is the reason of a failure."""
    return done.stderr.strip().splitlines()[-1]
