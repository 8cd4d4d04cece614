"""Seconds from trained weights to weights in the engine: `make bench-publish`.

Publishes random float32 weights several times, as the learner does, and loads them as an engine does. "one by one" is
the plain way: convert on the CPU, write with safetensors, read again for the checksum, and verify while the engine
stands still. "ours" is the product's, which also uses the memory of the last deleted version again. Both
take turns, and each figure is the least of all rounds. Loading is a lower bound: the mapped file is copied into
existing tensors, without vLLM's own work.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from grpo_gsm8k.learner.host_copy import HostCopy
from grpo_gsm8k.learner.tensor_file import write_tensors
from grpo_gsm8k.transport import weights
from grpo_gsm8k.transport.protocol import WeightsRef

ROUNDS = 8
BLOCK_MB = 16  # size of each tensor but the last in the engine's precision: that of a 1.5B model's projections
CANARY = weights.Canary((1, 2), (-0.5,))
Tensors = dict[str, torch.Tensor]
Copy = Callable[[Iterable[tuple[str, torch.Tensor]]], Tensors]
Write = Callable[[Tensors, Path], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Way:
    """A way from weights to a folder in /dev/shm."""

    name: str
    copy: Copy
    write: Write
    delete: Callable[[WeightsRef], None]
    verifies_in_pause: bool  # the engine stands still during the verification


@dataclass(frozen=True, slots=True)
class Seconds:
    """Seconds of the parts of one publication; `write` includes the checksum."""

    copy: float
    write: float
    verify: float
    load: float


def main() -> int:
    """Measure both ways and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=500, help="size of the weights in the engine's precision")
    parser.add_argument("--dtype", default="bfloat16", help="the engine's precision")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shm", type=Path, default=Path("/dev/shm"))
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    masters = random_weights(options.mb, dtype, options.device)
    print(f"{options.mb} MB of {options.dtype} on {options.device}, {torch.get_num_threads()} threads; seconds")
    print(f"{'':12}{'copy':>8}{'write':>8}{'verify':>8}{'load':>8}{'engine stands still':>22}{'in all':>8}")
    ways = (
        Way("one by one", plain_copy(dtype), plain_write, plain_delete, verifies_in_pause=True),
        Way("ours", HostCopy(dtype).copy, our_write, weights.delete, verifies_in_pause=False),
    )
    for way, took in zip(ways, measure(masters, ways, options.shm), strict=True):
        pause = took.load + (took.verify if way.verifies_in_pause else 0.0)
        total = took.copy + took.write + took.verify + took.load
        parts = f"{took.copy:8.3f}{took.write:8.3f}{took.verify:8.3f}{took.load:8.3f}"
        print(f"{way.name:12}{parts}{pause:22.3f}{total:8.3f}", flush=True)
    return 0


def random_weights(megabytes: int, dtype: torch.dtype, device: str) -> Tensors:
    """Return float32 tensors that have this size in `dtype`."""
    count = max(1, megabytes // BLOCK_MB)
    shape = (BLOCK_MB * 2**20 // 1024 // dtype.itemsize, 1024)
    return {f"model.layers.{i}.weight": torch.randn(shape, device=device) for i in range(count)}


def plain_copy(dtype: torch.dtype) -> Copy:
    """Return a copy that lets torch convert on the CPU."""
    return lambda tensors: {name: t.to(device="cpu", dtype=dtype).contiguous() for name, t in tensors}


def plain_write(tensors: Tensors, folder: Path) -> dict[str, str]:
    """Write with safetensors; the checksum is computed later."""
    save_file(tensors, folder / weights.MODEL_FILE)
    return {}


def our_write(tensors: Tensors, folder: Path) -> dict[str, str]:
    """Write and compute the checksum at once."""
    return {weights.MODEL_FILE: write_tensors(folder / weights.MODEL_FILE, tensors)}


def plain_delete(ref: WeightsRef) -> None:
    """Free the memory of a version."""
    shutil.rmtree(ref.path)


def measure(masters: Tensors, ways: Sequence[Way], shm: Path) -> list[Seconds]:
    """Publish and load ROUNDS times in each way by turns; return the least of each part."""
    live: Tensors = {}
    rounds: list[list[Seconds]] = [[] for _ in ways]
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        for way in ways:
            (Path(folder) / way.name / "i0").mkdir(parents=True)
        for version in range(ROUNDS):
            for way, times in zip(ways, rounds, strict=True):
                times.append(publish_and_load(masters, live, way, Path(folder) / way.name / "i0", version))
    return [Seconds(*(min(getattr(r, field.name) for r in times) for field in fields(Seconds))) for times in rounds]


def publish_and_load(masters: Tensors, live: Tensors, way: Way, root: Path, version: int) -> Seconds:
    """Do it once; `live` holds the engine's tensors."""
    times = [time.perf_counter()]
    host = way.copy(masters.items())
    times.append(time.perf_counter())
    size = sum(tensor.nbytes for tensor in host.values())
    ref = weights.publish(root, version, "model", size, partial(way.write, host), CANARY)
    times.append(time.perf_counter())
    verified = weights.verify(ref)
    times.append(time.perf_counter())
    load(verified.folder / weights.MODEL_FILE, live, masters)
    times.append(time.perf_counter())
    way.delete(ref)
    return Seconds(*(end - start for start, end in pairwise(times)))


def load(file: Path, live: Tensors, masters: Tensors) -> None:
    """Copy the mapped file into the engine's tensors, which the first call allocates."""
    with safe_open(file, framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - safe_open is not a mapping
            tensor = tensors.get_tensor(name)
            if name not in live:
                live[name] = torch.empty_like(tensor, device=masters[name].device)
            live[name].copy_(tensor)
    if masters[name].is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    raise SystemExit(main())
