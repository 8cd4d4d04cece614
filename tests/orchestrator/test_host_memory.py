"""Memory of the machine and of processes, compared with what the kernel says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from grpo_gsm8k.orchestrator.host_memory import GIB, memory_metrics, resident_bytes
from grpo_gsm8k.transport.protocol import Heartbeat


def worker(pid: int, gpu_bytes: int = 0, here: bool = True) -> Any:
    return SimpleNamespace(pid=pid, here=here, beat=Heartbeat(0, False, 0.0, 0.0, gpu_bytes))


def kernel_gib(pid: int) -> float:
    """Resident pages of a process, from /proc."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / GIB


def test_resident_memory_is_the_kernels() -> None:
    with subprocess.Popen([sys.executable, "-c", "x = bytearray(2**26); input()"], stdin=subprocess.PIPE) as child:
        found: dict[str, float] = {}
        while found.get("mem/learner_rss", 0) < 2**26 / GIB:
            found = memory_metrics([worker(os.getpid()), worker(os.getpid())], worker(child.pid))
        assert found["mem/learner_rss"] == pytest.approx(kernel_gib(child.pid), rel=0.05)
        own = kernel_gib(os.getpid())
        assert found["mem/orchestrator_rss"] == pytest.approx(own, rel=0.05)
        assert found["mem/actor_rss"] == pytest.approx(2 * own, rel=0.05)
        assert found["mem/host_used"] > 2**26 / GIB
        assert "mem/actor_gpu_held" not in found  # on a CPU
        child.communicate(b"\n")
    assert child.wait() == 0
    assert resident_bytes([child.pid]) is None
    assert "mem/learner_rss" not in memory_metrics([], worker(child.pid))


def test_gpu_memory_of_actors_is_added() -> None:
    pid = os.getpid()
    assert memory_metrics([worker(pid, 3 * GIB), worker(pid, GIB)], None)["mem/actor_gpu_held"] == 4.0
    nothing_else = {"mem/host_used", "mem/orchestrator_rss"}
    assert memory_metrics([], None).keys() == nothing_else
    assert memory_metrics([worker(pid, here=False)], None).keys() == nothing_else  # its process id means another one
