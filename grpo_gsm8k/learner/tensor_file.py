"""Writes a safetensors file and computes its checksum at the same time.

The file equals that of `safetensors.torch.save_file`, which would have to be read again for its checksum.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

from grpo_gsm8k.files import checksums

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
ALIGNMENT = 8  # the data begins at a multiple of this many bytes


def write_tensors(file: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Write a safetensors file and return its digest as `checksums.digest_file` would.

    All tensors are contiguous, on the CPU and of one type: float32, float16 or bfloat16. A thread hashes their memory
    while this one writes it: both release the interpreter's lock. The memory of an existing file, see `weights.delete`,
    is overwritten instead of freed. Raises OSError.
    """
    names = sorted(tensors)
    parts = [memoryview(_header({name: tensors[name] for name in names}))]
    parts += [tensors[name].reshape(-1).view(torch.uint8).numpy().data for name in names]
    with ThreadPoolExecutor(1, "checksum") as pool:
        digest = pool.submit(checksums.digest_parts, parts)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as out:
            for part in parts:
                rest = part
                while rest:  # the system writes at most 2 GiB at once
                    rest = rest[out.write(rest) :]
            out.truncate()
        return digest.result()


def _header(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Return the header's length, 8 bytes, and the header: types, shapes and offsets as JSON, padded with spaces."""
    (dtype,) = {tensor.dtype for tensor in tensors.values()}
    entries = {}
    start = 0
    for name, tensor in tensors.items():
        end = start + tensor.nbytes
        entries[name] = {"dtype": NAMES[dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    padded = text + b" " * (-len(text) % ALIGNMENT)
    return len(padded).to_bytes(8, "little") + padded
