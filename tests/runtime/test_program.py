"""Programs end with the process that started them, including their children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from grpo_gsm8k.runtime.program import end_program, running, start_program
from tests.conftest import REPO

# Starts a child in the same process group, prints both process ids, and waits.
NESTED = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
PARENT = """
import os, sys, time
from pathlib import Path
from grpo_gsm8k.runtime.program import start_program
start_program([sys.executable, "-c", sys.argv[2]], os.environ, Path(sys.argv[1]))
time.sleep(600)
"""


def pids(log: Path) -> list[psutil.Process]:
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [psutil.Process(int(word)) for word in log.read_text().split()]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_program_and_child_die_with_the_parent(tmp_path: Path, how: signal.Signals) -> None:
    log = tmp_path / "log"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(log), NESTED], cwd=REPO)
    started = pids(log)
    assert all(process.is_running() for process in started)
    parent.send_signal(how)
    assert parent.wait() == -how
    assert not psutil.wait_procs(started, timeout=30)[1]


def test_the_end_of_the_block_ends_program_and_child(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running([sys.executable, "-c", NESTED], os.environ, log) as process:
        started = pids(log)
        assert process.poll() is None
    assert not psutil.wait_procs(started, timeout=30)[1]


@pytest.mark.parametrize(
    ("code", "expected"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_its_exit_code_is_known(tmp_path: Path, code: str, expected: int) -> None:
    process = start_program([sys.executable, "-c", code], os.environ, tmp_path / "log")
    assert process.wait(60) == expected
    end_program(process)  # it has already ended: nothing happens
