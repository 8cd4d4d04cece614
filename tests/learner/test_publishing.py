"""Copies of the weights on the host and the files written from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from grpo_gsm8k.files import checksums
from grpo_gsm8k.learner.host_copy import HostCopy
from grpo_gsm8k.learner.tensor_file import write_tensors

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
DEVICES = [torch.device("cpu"), *([torch.device("cuda:0")] if torch.cuda.is_available() else [])]


def masters(seed: int = 0) -> dict[str, torch.Tensor]:
    """Float32 weights with values that every type rounds differently, none in the order of their names."""
    generator = torch.Generator().manual_seed(seed)
    exponents = torch.randint(-30, 10, (37, 5), generator=generator)
    return {
        "model.b": torch.randn(37, 5, generator=generator) * 2.0**exponents,
        "model.a": torch.randn(4, 6, generator=generator).T,
        'é "quoted"': torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1e-40, -0.0, float("inf"), 70000.0]),
        "scalar": torch.tensor(0.1),
        "empty": torch.zeros(0, 3),
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_file_and_its_digest_are_those_of_safetensors(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in masters().items()}
    digest = write_tensors(tmp_path / "ours", tensors)
    save_file(tensors, tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert digest == checksums.digest_file(tmp_path / "theirs")


@pytest.mark.parametrize("before", [10, 100_000])
def test_an_old_file_is_overwritten_in_place(tmp_path: Path, before: int) -> None:
    """A shorter one and a longer one: nothing of it is left."""
    file = tmp_path / "model"
    file.write_bytes(b"x" * before)
    inode = file.stat().st_ino
    tensors = {"weight": torch.randn(50, 20)}
    digest = write_tensors(file, tensors)
    save_file(tensors, tmp_path / "new")
    assert file.read_bytes() == (tmp_path / "new").read_bytes()
    assert digest == checksums.digest_file(file)
    assert file.stat().st_ino == inode


def test_digest_of_parts_longer_than_one_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256)) * 4
    (tmp_path / "file").write_bytes(content)
    expected = checksums.digest_file(tmp_path / "file")
    monkeypatch.setattr(checksums, "CHUNK_BYTES", 100)
    assert checksums.digest_parts([memoryview(content[:333]), memoryview(b""), memoryview(content[333:])]) == expected


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_are_bitwise_those_of_the_cpu(dtype: torch.dtype, device: torch.device) -> None:
    """Also at the second publication, which reuses the memory of the first."""
    host = HostCopy(dtype)
    for seed in (0, 1):
        copied = host.copy((name, tensor.to(device)) for name, tensor in masters(seed).items())
        for name, tensor in masters(seed).items():
            assert copied[name].is_contiguous()
            assert copied[name].dtype == dtype
            assert torch.equal(copied[name], tensor.to(dtype)), name


def test_memory_is_kept_and_none_is_used_for_tensors_that_need_no_copy() -> None:
    tensors = {name: tensor.contiguous() for name, tensor in masters().items()}
    converting = HostCopy(torch.bfloat16)
    first = {name: t.data_ptr() for name, t in converting.copy(tensors.items()).items()}
    assert {name: t.data_ptr() for name, t in converting.copy(tensors.items()).items()} == first
    unchanged = HostCopy(torch.float32).copy(tensors.items())
    assert all(unchanged[name].data_ptr() == tensors[name].data_ptr() for name in tensors)
