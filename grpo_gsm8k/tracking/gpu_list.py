"""The GPUs of this machine as the driver lists them, and those that CUDA_VISIBLE_DEVICES selects, in CUDA's order.

With CUDA_DEVICE_ORDER=PCI_BUS_ID, which all of our processes set, CUDA numbers GPUs as nvidia-smi does; by itself it
puts the fastest first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.tracking.program_output import program_output

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
DEVICE_ORDER: Final = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
# The name comes last because no other column can contain a comma.
QUERY = "--query-gpu=driver_version,uuid,memory.total,memory.free,mig.mode.current,name"
_GPU = re.compile(r"GPU \d+: .*\(UUID: (GPU-[0-9a-f-]+)\)")
_MIG = re.compile(r"\s+MIG (\S*?(\d+)gb\S*)\s+Device\s+\d+: \(UUID: (MIG-[0-9a-fA-F-]+)\)")
# Of the nominal size in a MIG device's name: 1g.5gb has 4864 MiB, 3g.40gb has 40192 MiB.
_MIG_MEMORY = 0.95


@dataclass(frozen=True, slots=True)
class GpuRow:
    """One GPU, or a MIG device of one, as nvidia-smi prints it; memory with its unit, as in `81559 MiB`."""

    driver: str
    uuid: str
    memory_total: str
    memory_free: str
    mig_mode: str  # Enabled, Disabled, or [N/A]
    name: str

    @property
    def is_mig(self) -> bool:
        """Whether this is a part of a GPU. CUDA shows a process one such part, the first that it may see."""
        return self.uuid.startswith("MIG-")


def gpu_rows() -> list[GpuRow] | None:
    """Return all GPUs that the driver reports; None if nvidia-smi is missing or fails."""
    text = program_output(["nvidia-smi", QUERY, "--format=csv,noheader"])
    if text is None:
        return None
    rows = [[part.strip() for part in line.split(",", 5)] for line in text.splitlines()]
    return [GpuRow(*row) for row in rows if len(row) == 6]


def visible_rows(rows: list[GpuRow], visible: str | None) -> list[GpuRow]:
    """Return the rows that `visible`, the value of CUDA_VISIBLE_DEVICES, selects, in its order; None selects all.

    A GPU in MIG mode stands for its parts. Like CUDA, this ignores what follows an entry that does not exist.
    """
    parts = _mig_parts(rows) if any(row.mig_mode == "Enabled" for row in rows) else {}
    devices = [parts.get(row.uuid) or [row] for row in rows]
    if visible is None:
        return [device for group in devices for device in group]
    selected = []
    for entry in visible_entries(visible):
        if entry.isdigit():
            found = devices[int(entry)][:1] if int(entry) < len(devices) else []
        else:
            found = [device for group in devices for device in group if device.uuid.startswith(entry)][:1]
        if not found:
            break
        selected += found
    return selected


def visible_entries(visible: str) -> list[str]:
    """Split a value of CUDA_VISIBLE_DEVICES into indices and UUIDs.

    As in CUDA, the list ends at an entry that is neither, and a repeated entry makes it empty.
    """
    entries: list[str] = []
    for entry in (part.strip() for part in visible.split(",")):
        if not (entry.isdigit() or entry.startswith(("GPU-", "MIG-"))):
            break
        entries.append(entry)
    return entries if len(set(entries)) == len(entries) else []


def visible_entry(device: str, number: int, visible: str | None) -> str:
    """Return what a process that uses only `cuda:<number>` has to set CUDA_VISIBLE_DEVICES to.

    `visible` is its value here; `device` is the configuration key and value, for the message. Raises UserError if
    CUDA_VISIBLE_DEVICES selects fewer GPUs.
    """
    if visible is None:
        return str(number)
    entries = visible_entries(visible)
    if number >= len(entries):
        raise UserError(
            f"{device} needs cuda:{number}, but {VISIBLE}={visible} shows {len(entries)} GPUs: "
            "set it to more of them, or unset it"
        )
    return entries[number]


def _mig_parts(rows: list[GpuRow]) -> dict[str, list[GpuRow]]:
    """Return the MIG devices by the UUID of their GPU; their free memory is not known, so it counts as all of it."""
    by_uuid = {row.uuid: row for row in rows}
    parts: dict[str, list[GpuRow]] = {}
    gpu = None
    for line in (program_output(["nvidia-smi", "--list-gpus"]) or "").splitlines():
        if found := _GPU.match(line):
            gpu = by_uuid.get(found[1])
        elif gpu is not None and (found := _MIG.match(line)):
            memory = f"{int(int(found[2]) * 1024 * _MIG_MEMORY)} MiB"
            name = f"{gpu.name} MIG {found[1]}"
            part = replace(gpu, uuid=found[3], memory_total=memory, memory_free=memory, name=name)
            parts.setdefault(gpu.uuid, []).append(part)
    return parts
