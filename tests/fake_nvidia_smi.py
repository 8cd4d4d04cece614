"""A stand-in for nvidia-smi that prints what was recorded on a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

A100, L40S = "NVIDIA A100-SXM4-80GB", "NVIDIA L40S"
UUID = "GPU-{}d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77"
MIG_UUID = "MIG-{}6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"


def row(number: int, name: str, total: int, free: int, driver: str = "580.65.06", mig: str = "[N/A]") -> str:
    """Return one line of `--query-gpu`, memory in MiB."""
    return f"{driver}, {UUID.format(number)}, {total} MiB, {free} MiB, {mig}, {name}"


EIGHT_MIXED = [row(i, L40S, 46068, 45500) if i < 4 else row(i, A100, 81920, 81100) for i in range(8)]
DIVIDED = [row(0, A100, 81920, 81100, mig="Enabled"), row(1, A100, 81920, 81100, mig="Disabled")]
DIVIDED_LIST = [
    f"GPU 0: {A100} (UUID: {UUID.format(0)})",
    f"  MIG 3g.40gb     Device  0: (UUID: {MIG_UUID.format('a')})",
    f"  MIG 1g.10gb     Device  1: (UUID: {MIG_UUID.format('b')})",
    f"GPU 1: {A100} (UUID: {UUID.format(1)})",
]


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, rows: list[str], listed: list[str] | None = None) -> None:
    """Put the stand-in first in PATH; without `listed` it fails for `--list-gpus`."""
    (folder / "rows").write_text("\n".join(rows) + "\n")
    (folder / "listed").write_text("\n".join(listed or []) + "\n")
    tool = folder / "nvidia-smi"
    fallback = "exec cat" if listed else "exit 1;"
    tool.write_text(
        f'#!/bin/sh\ncase $1 in\n--query-gpu=*) exec cat "{folder}/rows" ;;\n'
        f'--list-gpus) {fallback} "{folder}/listed" ;;\n*) exit 1 ;;\nesac\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
