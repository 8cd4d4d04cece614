"""Baselines of a GPU, and the gate that compares with them. Pure but for reading and writing the file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "baselines"
TIME = 0.15  # allowed growth; clocks and temperature of one GPU vary by less
MEMORY = 0.01  # allowed growth; allocations repeat exactly but for libraries' workspaces


@dataclass(frozen=True, slots=True)
class Figures:
    """What a baseline keeps of a case: seconds of an update, and peak memory in MiB."""

    update_s: float
    peak_mb: float


def compare(baseline: Mapping[str, Figures], measured: Mapping[str, Figures]) -> list[str]:
    """Return a line for every case that is more than 15 % slower or needs more than 1 % more memory.

    A case of the baseline that was not measured is such a line too, and so is one that the baseline lacks: a gate that
    compares nothing must not pass.
    """
    lines = [f"{name}: not measured" for name in baseline if name not in measured]
    for name, now in measured.items():
        before = baseline.get(name)
        if before is None:
            lines.append(f"{name}: not in the baseline")
            continue
        slower, larger = now.update_s / before.update_s - 1, now.peak_mb / before.peak_mb - 1
        if slower > TIME:
            lines.append(f"{name}: {now.update_s:.3g} s instead of {before.update_s:.3g} s ({slower:+.0%})")
        if larger > MEMORY:
            lines.append(f"{name}: {now.peak_mb:.0f} MiB instead of {before.peak_mb:.0f} MiB ({larger:+.1%})")
    return lines


def baseline_file(device_name: str, folder: Path = FOLDER) -> Path:
    """Return the file of a device, `NVIDIA H100 80GB HBM3` -> `nvidia_h100_80gb_hbm3.json`."""
    return folder / f"{re.sub(r'[^a-z0-9]+', '_', device_name.lower()).strip('_')}.json"


def read_baseline(file: Path) -> dict[str, Figures]:
    """Return the figures by the names of cases. Raises FileNotFoundError if this device has no baseline."""
    return {name: Figures(**values) for name, values in json.loads(file.read_text(encoding="utf-8")).items()}


def write_baseline(file: Path, measured: Mapping[str, Figures]) -> None:
    """Write the figures of all cases."""
    file.parent.mkdir(exist_ok=True)
    content = {name: asdict(values) for name, values in measured.items()}
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
