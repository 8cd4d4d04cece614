"""Table of rented GPUs: memory, rates, price.

Memory is what the driver reports, slightly below the nominal size; bandwidth and the dense bf16 rate are the vendor's.
Prices are typical for rented cloud pods and change weekly: `budget.usd_per_hour` replaces them.
"""

from __future__ import annotations

from dataclasses import dataclass

from grpo_gsm8k.errors import UserError

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU model: memory in GiB, bandwidth in GB/s, dense bf16 rate in TFLOP/s, typical price in USD per hour."""

    name: str
    memory_gib: float
    bandwidth_gb_s: float
    bf16_tflops: float
    usd_per_hour: float


TABLE: tuple[Device, ...] = (
    Device("b200-180gb", 178.4, 7700, 2250, 5.50),
    Device("h200-141gb", 140.4, 4800, 989, 3.60),
    Device("h100-80gb", 79.6, 3350, 989, 2.70),
    Device("a100-80gb", 79.2, 2039, 312, 1.70),
    Device("a100-40gb", 39.4, 1555, 312, 1.20),
    Device("rtx-pro-6000", 95.0, 1792, 504, 1.80),
    Device("l40s", 44.5, 864, 362, 0.90),
    Device("a40", 44.6, 696, 150, 0.40),
    Device("rtx6000-ada", 47.4, 960, 364, 0.80),
    Device("a6000", 47.4, 768, 155, 0.50),
    Device("rtx5090", 31.8, 1792, 209, 0.90),
    Device("rtx4090", 23.9, 1008, 165, 0.60),
    Device("rtx3090", 23.9, 936, 71, 0.35),
    Device("l4", 22.0, 300, 121, 0.45),
    Device("a10g", 22.1, 600, 70, 0.75),
)
# Words in the driver's names, longer ones first: "NVIDIA A100-SXM4-40GB", "NVIDIA GeForce RTX 4090".
_WORDS = (
    ("rtx pro 6000", "rtx-pro-6000"),
    ("rtx 6000 ada", "rtx6000-ada"),
    ("rtx a6000", "a6000"),
    ("rtx 5090", "rtx5090"),
    ("rtx 4090", "rtx4090"),
    ("rtx 3090", "rtx3090"),
    ("b200", "b200-180gb"),
    ("h200", "h200-141gb"),
    ("h100", "h100-80gb"),
    ("l40s", "l40s"),
    ("a10g", "a10g"),
    ("a40", "a40"),
    ("l4", "l4"),
)


def by_name(name: str) -> Device:
    """Return the row called `name`. Raises UserError that lists all names."""
    for device in TABLE:
        if device.name == name.lower():
            return device
    raise UserError(f"doctor.gpu={name} is not in the table: choose one of {', '.join(d.name for d in TABLE)}")


def recognize(driver_name: str, memory_gib: float) -> Device | None:
    """Return the row for a GPU as the driver names it; None if the table lacks it."""
    words = driver_name.lower().replace("-", " ")
    if "a100" in words:
        return by_name("a100-40gb" if memory_gib < 60 else "a100-80gb")
    for word, name in _WORDS:
        if f" {word} " in f" {words} ":
            return by_name(name)
    return None
