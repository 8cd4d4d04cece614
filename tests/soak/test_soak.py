"""A short soak: ten faults at random places of runs with the scripted engine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import REPO

KILLS = 10


@pytest.mark.slow
def test_ten_faults_lose_nothing() -> None:
    command = [sys.executable, "-m", "tests.soak", "--kills", str(KILLS), "--seed", "1"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    *runs, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert [run["lost"] for run in runs] == [[]] * len(runs), done.stdout
    assert done.returncode == 0
    assert summary["kills"] == KILLS  # they were sent to processes that were alive
