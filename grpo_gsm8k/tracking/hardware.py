"""Hardware and installed packages of this machine, as manifest.json and the preflight checks report them."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from grpo_gsm8k.config.cpu_precision import CPUINFO

PROGRAM_TIMEOUT_S = 10.0  # nvidia-smi takes about a second; longer means that the driver hangs
CGROUP = Path("/sys/fs/cgroup")
# The name comes last because no other column can contain a comma.
GPU_QUERY = "--query-gpu=driver_version,uuid,memory.total,memory.free,name"


@dataclass(frozen=True, slots=True)
class GpuRow:
    """One GPU as nvidia-smi prints it; memory with its unit, as in `81559 MiB`."""

    driver: str
    uuid: str
    memory_total: str
    memory_free: str
    name: str


def machine_facts() -> dict[str, Any]:
    """Return what manifest.json records about the machine."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", _text(CPUINFO), re.MULTILINE)
    return {
        "platform": platform.platform(),
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "ram_bytes": psutil.virtual_memory().total,
        "container_ram_limit_bytes": _text(CGROUP / "memory.max") or None,
        "container_cpu_limit": _text(CGROUP / "cpu.max") or None,
        "gpus": [f"{gpu.name}, {gpu.memory_total}, {gpu.driver}" for gpu in gpu_rows() or []],
    }


def gpu_rows() -> list[GpuRow] | None:
    """Return all GPUs that the driver reports; None if nvidia-smi is missing or fails."""
    text = program_output(["nvidia-smi", GPU_QUERY, "--format=csv,noheader"])
    if text is None:
        return None
    rows = [[part.strip() for part in line.split(",", 4)] for line in text.splitlines()]
    return [GpuRow(*row) for row in rows if len(row) == 5]


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


def package_version(name: str) -> str | None:
    """Return the installed version of a package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def program_output(command: list[str]) -> str | None:
    """Return what a program prints; None if it is missing, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
