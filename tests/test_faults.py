"""Faults on purpose: inert unless asked for, the same again with the same seed, logged before they happen."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from grpo_gsm8k import faults
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.faults import Fault, HalvingWriter
from tests.conftest import REPO

PLACES = """
import sys
from pathlib import Path
from grpo_gsm8k import faults
faults.arm(sys.argv[1], Path(sys.argv[2]))
for _ in range(1000):
    for name in faults.HOOKS:
        faults.hook(name, "here")
"""


def child(process: str, log: Path, value: str | None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    if value is not None:
        environment[faults.VARIABLE] = value
    return subprocess.Popen([sys.executable, "-c", PLACES, process, str(log)], env=environment)


def ended(process: str, log: Path, value: str | None) -> int:
    """Run a process to its end, or to its first stop; returns its exit code, or that of the stop."""
    _, status = os.waitpid(child(process, log, value).pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        os.kill(pid := faults.read(log)[-1].pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return -os.WSTOPSIG(status)
    return os.waitstatus_to_exitcode(status)


def places(lines: list[Fault]) -> list[tuple[object, ...]]:
    return [(line.kind, line.process, line.incarnation, line.hook, line.call, line.seconds) for line in lines]


@pytest.mark.parametrize("value", ["", "1", "x:0.1", "1:0", "1:1.5", "1:-0.1", "1:nan", "-1:0.1", "1:0.1:2", "1 :0.1"])
def test_malformed_values_are_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(faults.VARIABLE, value)
    with pytest.raises(UserError, match=r"FAULTS=.*: give a seed and a rate above 0 and at most 1, such as FAULTS=1:"):
        faults.requested()


def test_nothing_happens_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(faults.VARIABLE, raising=False)
    log = tmp_path / "log"
    assert ended("learner", log, None) == 0
    assert not log.exists()
    writer = object()
    assert faults.halving(writer) is writer


def test_the_same_seed_gives_the_same_faults_and_the_next_process_others(tmp_path: Path) -> None:
    logs = [tmp_path / name for name in ("one", "other", "seed")]
    for log, value in zip(logs, ("3:0.02", "3:0.02", "4:0.02"), strict=True):
        for _ in range(6):
            code = ended("learner", log, value)
            last = faults.read(log)[-1]  # it was logged before it happened
            assert code == {"kill": -signal.SIGKILL, "stop": -signal.SIGSTOP}[last.kind]
            assert last.where == "here"
    one, other, seed = (places(faults.read(log)) for log in logs)
    assert one == other != seed
    ends = [line for line in faults.read(logs[0]) if line.kind in ("kill", "stop")]
    assert [line.incarnation for line in ends] == list(range(6))
    assert len({(line.hook, line.call) for line in ends}) > 3
    assert {line.kind for line in faults.read(logs[0])} == {"armed", "kill", "stop", "delay"}


def test_every_hook_has_its_place() -> None:
    texts = [path.read_text() for path in (REPO / "grpo_gsm8k").rglob("*.py")]
    assert {name for text in texts for name in re.findall(r'\bhook\("([^"]+)"', text)} == set(faults.HOOKS)


def test_messages_in_two_halves_arrive_whole() -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    messages = ["", "a", np.arange(300_000), {"b": 1}]

    def send() -> None:
        for message in messages:
            HalvingWriter(writer).send(message)
        HalvingWriter(writer).close()

    sender = threading.Thread(target=send)
    sender.start()
    received = [reader.recv() for _ in messages]
    sender.join()
    assert received[:2] + received[3:] == messages[:2] + messages[3:]
    assert np.array_equal(received[2], messages[2])
    with pytest.raises(EOFError):
        reader.recv()
