"""Step 1: driver, torch's CUDA, a matrix product in bf16, the compiler, and how GPUs are connected."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from benchmarks.gpu_check.outcome import require
from grpo_gsm8k.tracking.hardware import gpu_rows
from grpo_gsm8k.tracking.program_output import program_output

if TYPE_CHECKING:
    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup

MIN_DRIVER = 580  # CUDA 13 needs it, which torch 2.13 is built for
TOLERANCE = 0.02  # relative; bf16 has 8 bits of mantissa


def check(setup: Setup, record: Record) -> None:
    """Fail for an old driver, a torch that sees no GPU, or a wrong matrix product."""
    import bitsandbytes
    import torch

    record("torch", torch.__version__)
    record("bitsandbytes", bitsandbytes.__version__)
    record("CUDA of torch", str(torch.version.cuda))
    record("nvcc", shutil.which("nvcc") or "none")
    record("CUDA_HOME", os.environ.get("CUDA_HOME", "not set"))
    if setup.cuda:
        rows = gpu_rows() or []
        record("GPUs", "; ".join(f"{row.name}, {row.memory_total}" for row in rows))
        driver = rows[0].driver
        record("driver", driver)
        require(int(driver.split(".")[0]) >= MIN_DRIVER, f"driver {driver} is older than {MIN_DRIVER}: update it")
        require(torch.cuda.is_available(), "torch sees no GPU")
        record("compute capability", ".".join(map(str, torch.cuda.get_device_capability())))
        record("links", program_output(["nvidia-smi", "topo", "-m"]) or "unknown")
    error = product_error(setup.device)
    record("bf16 matrix product, relative error", error)
    require(error < TOLERANCE, f"a bf16 matrix product is off by {error:.3g}")


def product_error(device: str) -> float:
    """Return the relative error of a product of two bf16 matrices against float64 on the CPU."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator).bfloat16() for _ in range(2))
    product = (a.to(device) @ b.to(device)).double().cpu()
    exact = a.double() @ b.double()
    return float((product - exact).norm() / exact.norm())
