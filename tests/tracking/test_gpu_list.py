"""GPUs as nvidia-smi lists them, and those that CUDA_VISIBLE_DEVICES selects."""

from __future__ import annotations

from pathlib import Path

import pytest

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.tracking import hardware
from grpo_gsm8k.tracking.gpu_list import GpuRow, gpu_rows, visible_entries, visible_entry, visible_rows
from tests import fake_nvidia_smi as fake


@pytest.fixture
def eight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[GpuRow]:
    fake.install(tmp_path, monkeypatch, fake.EIGHT_MIXED)
    return gpu_rows() or []


@pytest.mark.parametrize(
    ("visible", "numbers"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("5,0", [5, 0]),  # in its own order
        (" 6 , 7", [6, 7]),
        ("", []),
        ("NoDevFiles", []),
        ("1,9,2", [1]),  # CUDA ignores what follows an entry that does not exist
        ("1,-1,2", [1]),
        ("2,2", []),
        (f"{fake.UUID.format(3)},GPU-7d5b", [3, 7]),  # a beginning is enough
        ("4,GPU-unknown", [4]),
    ],
)
def test_the_selection_is_cudas(eight: list[GpuRow], visible: str | None, numbers: list[int]) -> None:
    assert visible_rows(eight, visible) == [eight[number] for number in numbers]


def test_parts_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(tmp_path, monkeypatch, fake.DIVIDED, fake.DIVIDED_LIST)
    rows = gpu_rows() or []
    large, small = fake.MIG_UUID.format("a"), fake.MIG_UUID.format("b")
    assert [row.uuid for row in visible_rows(rows, None)] == [large, small, fake.UUID.format(1)]
    assert [row.uuid for row in visible_rows(rows, small)] == [small]
    (part,) = visible_rows(rows, "0")  # CUDA takes the first part
    assert (part.uuid, part.name, part.is_mig) == (large, f"{fake.A100} MIG 3g.40gb", True)
    assert part.memory_total == part.memory_free == "38912 MiB"  # the real one has 40192 MiB


def test_the_manifest_counts_the_usable_ones(eight: list[GpuRow], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    facts = hardware.machine_facts()
    assert (len(facts["gpus"]), facts["usable_gpus"]) == (len(eight), 2)


def test_what_a_process_with_one_gpu_gets() -> None:
    assert visible_entry("actor.device=cuda:1", 1, None) == "1"
    assert visible_entry("actor.device=cuda:1", 1, "4,GPU-a") == "GPU-a"
    assert visible_entries("MIG-a,MIG-b") == ["MIG-a", "MIG-b"]
    for visible, count in (("2", 1), ("", 0)):
        with pytest.raises(
            UserError, match=f"actor.device=cuda:1 needs cuda:1, but CUDA_VIS.*={visible} shows {count}"
        ):
            visible_entry("actor.device=cuda:1", 1, visible)
