"""Which precision `dtype: auto` is, by the instructions that the CPU lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import load_config
from grpo_gsm8k.config import cpu_precision
from grpo_gsm8k.config.cpu_precision import resolved_dtype

WITH = "flags\t\t: fpu avx512f avx512_bf16\n"
WITHOUT = "flags\t\t: fpu avx2 avx512f avx512_vnni\n"


@pytest.mark.parametrize(
    ("cpuinfo", "dtype"),
    [
        (f"model name\t: Xeon\n{WITH}", "bfloat16"),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", "bfloat16"),
        ("Features\t: fp asimd bf16 i8mm\n", "bfloat16"),
        (WITHOUT, "float32"),
        ("processor\t: 0\n", "float32"),
    ],
)
def test_bfloat16_on_a_cpu_needs_instructions(tmp_path: Path, cpuinfo: str, dtype: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    assert resolved_dtype("auto", "cpu", file) == dtype
    assert resolved_dtype("auto", "cuda:0", file) == "bfloat16"
    assert resolved_dtype("float32", "cuda:0", file) == "float32"
    assert resolved_dtype("bfloat16", "cpu", file) == "bfloat16"


@pytest.mark.parametrize(("cpuinfo", "dtype"), [(WITH, "bfloat16"), (WITHOUT, "float32")])
def test_a_checked_configuration_has_the_resolved_dtype(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str, dtype: str
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(cpu_precision.has_bf16, "__defaults__", (tmp_path / "cpuinfo",))
    monkeypatch.setattr(cpu_precision.resolved_dtype, "__defaults__", (tmp_path / "cpuinfo",))
    config = load_config(["command=policy_gradient", "preset=cpu_smollm2"])
    assert (config.actor.dtype, config.learner.dtype) == (dtype, dtype)
    saved = config.model_dump(mode="json")
    assert (saved["actor"]["dtype"], saved["learner"]["dtype"]) == (dtype, dtype)
    config = load_config(["command=policy_gradient", "preset=two_gpu"])
    assert (config.actor.dtype, config.learner.dtype) == ("bfloat16", "bfloat16")
