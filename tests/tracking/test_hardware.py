"""What the machine's own files say about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import load_config
from grpo_gsm8k.tracking.hardware import cpu_dtype


@pytest.mark.parametrize(
    ("cpuinfo", "dtype"),
    [
        ("model name\t: Xeon\nflags\t\t: fpu avx512f avx512_bf16 avx512vl\n", "bfloat16"),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", "bfloat16"),
        ("Features\t: fp asimd bf16 i8mm\n", "bfloat16"),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", "float32"),
        ("processor\t: 0\n", "float32"),
    ],
)
def test_bfloat16_needs_instructions(tmp_path: Path, cpuinfo: str, dtype: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    assert cpu_dtype(file) == dtype


def test_the_preset_for_cpus_takes_the_dtype_of_this_one() -> None:
    config = load_config(["command=policy_gradient", "preset=cpu_smollm2"])
    assert config.actor.dtype == config.learner.dtype == cpu_dtype()
