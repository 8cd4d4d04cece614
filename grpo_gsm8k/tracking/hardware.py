"""Hardware and installed packages of this machine, as manifest.json and the preflight checks report them."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from grpo_gsm8k.config.cpu_precision import CPUINFO
from grpo_gsm8k.tracking.gpu_list import VISIBLE, gpu_rows, visible_rows

CGROUP = Path("/sys/fs/cgroup")


def machine_facts() -> dict[str, Any]:
    """Return what manifest.json records about the machine."""
    gpus = gpu_rows() or []
    return {
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "ram_bytes": psutil.virtual_memory().total,
        "container_ram_limit_bytes": _text(CGROUP / "memory.max") or None,
        "container_cpu_limit": _text(CGROUP / "cpu.max") or None,
        "gpus": [f"{gpu.name}, {gpu.memory_total}, {gpu.driver}" for gpu in gpus],
        "usable_gpus": len(visible_rows(gpus, os.environ.get(VISIBLE))),
    }


def cpu_name() -> str:
    """Return the processor's model as the kernel names it, else its architecture."""
    found = re.search(r"^model name\s*:\s*(.+)$", _text(CPUINFO), re.MULTILINE)
    return found[1] if found else platform.machine()


def usable_cores() -> int:
    """Return how many cores this process may use at once: those it may run on, within the container's CPU limit."""
    return min(len(os.sched_getaffinity(0)), whole_cores(_text(CGROUP / "cpu.max")))


def whole_cores(cpu_max: str) -> int:
    """Return the limit in cgroup v2's `cpu.max`, `QUOTA PERIOD`, rounded down, at least 1; huge without one."""
    quota, _, period = cpu_max.partition(" ")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return sys.maxsize
    return max(1, int(quota) // int(period))


def memory_limit_bytes() -> float:
    """Return the container's memory limit (cgroup v2, else v1); infinity without one."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        if (text := _text(CGROUP / name)).isdigit():
            return float(text)
    return float("inf")


def free_memory_bytes(cgroup: Path = CGROUP) -> float:
    """Return how much more memory this process can take: what the machine has available, within the container's limit.

    Of what the container holds, files that are only cached do not count: the kernel drops them.
    """
    import psutil

    stat = dict(line.split() for line in _text(cgroup / "memory.stat").splitlines() if len(line.split()) == 2)
    held = sum(int(stat[name]) for name in ("anon", "shmem") if name in stat)  # cgroup v1 has other names
    return float(min(psutil.virtual_memory().available, memory_limit_bytes() - held))


def package_version(name: str) -> str | None:
    """Return the installed version of a package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
