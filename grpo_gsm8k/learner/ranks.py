"""The ranks of the learner: processes with the same weights that each compute a part of every update.

Rank 0 is the learner's process, the others are its children (`rank_process.py`). Short values travel over their pipes,
tensors over a process group of torch: gloo between CPUs, NCCL between GPUs. With one rank nothing travels.
"""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from grpo_gsm8k.learner.dealing import WHOLE, Part
from grpo_gsm8k.learner.shards import gathered, is_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from torch.distributed.device_mesh import DeviceMesh

BUCKET_VALUES = 2**24  # gradients that travel together: small enough to copy, large enough for few exchanges


class RankError(Exception):
    """A rank has ended, was late, or differs from the others; the text names it.

    Not a LabError: the orchestrator replaces the learner, all ranks of it, as after any other crash.
    """


class Link(Protocol):
    """A rank's pipes to the others. Pipes rather than the process group, because they tell who is late or dead."""

    limit_s: float

    def exchange(self, value: Any) -> list[Any]:
        """Return the values of all ranks, by rank. Raises RankError."""

    def announce(self, work: dict[str, Any]) -> None:
        """Give the other ranks work; of the first rank only. Raises RankError."""

    def blame(self, error: RuntimeError) -> RankError:
        """Find out which rank made an exchange of tensors fail."""

    def close(self) -> None:
        """End the other ranks, if this is the first one."""


class Ranks:
    """One rank among `part.ranks`. Every method is called by all ranks in the same order."""

    def __init__(
        self, part: Part = WHOLE, link: Link | None = None, folder: Path = Path(), device: str = "cpu"
    ) -> None:
        """Create the only rank, or with a `link` one of several.

        The others find each other in `folder`, and work there. It is private: whoever can write to it can take part.
        """
        self.part = part
        self._link = link
        self._folder = folder
        self.device = torch.device(device)

    def join(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Wait for all ranks to have loaded their models, and give them the parameters of rank 0. Raises RankError."""
        if self._link is None:
            return
        self.connect()
        self.spread(parameters, [0] * len(parameters))

    def connect(self) -> None:
        """Wait for all ranks, and connect them, unless that was done. Raises RankError."""
        if self._link is None or dist.is_initialized():
            return
        self.gather("connect")
        limit = timedelta(seconds=self._link.limit_s)
        for library in ("GLOO", "NCCL"):
            os.environ[f"{library}_SOCKET_IFNAME"] = "lo"  # all ranks are on this machine
        os.environ.update(TORCH_NCCL_BLOCKING_WAIT="1")  # an exchange that takes too long raises, as with gloo
        backend = "gloo" if self.device.type == "cpu" else "nccl"
        with _Blamed(self._link):
            dist.init_process_group(
                backend,
                init_method=f"file://{self._folder.resolve() / 'process_group'}",
                rank=self.part.rank,
                world_size=self.part.ranks,
                timeout=limit,
            )

    def mesh(self) -> DeviceMesh:
        """Return all ranks as a line, for models that are divided among them."""
        return init_device_mesh(self.device.type, (self.part.ranks,))

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor of which each rank has some rows, in host memory; empty on ranks but the first."""
        with self.blaming():
            found = gathered(tensor)
        return found.to("cpu") if self.part.rank == 0 else found.new_empty(0)

    def blame(self, error: RuntimeError) -> RankError:
        """Return the error that names the rank for which an exchange of tensors failed."""
        assert self._link is not None
        return self._link.blame(error)

    def blaming(self) -> AbstractContextManager[None]:
        """Return a context in which torch's errors become a RankError that names a rank."""
        return contextlib.nullcontext() if self._link is None else _Blamed(self._link)

    def announce(self, work: dict[str, Any], write: Callable[[Path], None] = lambda _: None) -> None:
        """Give the other ranks work: values of JSON, and the arrays that `write` puts into a folder; of rank 0 only.

        They have read those by the time they meet this rank, so the next work may overwrite them.
        """
        if self._link is not None:
            write(self._folder)
            self._link.announce(work)

    def gather(self, what: str, value: Any = None) -> list[Any]:
        """Return the values (of JSON) of all ranks, by rank. `what` is where in the program each of them has to be.

        A rank that is late by more than the time limit, has ended, or is elsewhere raises RankError.
        """
        if self._link is None:
            return [value]
        found = self._link.exchange([what, value])
        for rank, (place, _) in enumerate(found):
            if place != what:
                raise RankError(f"rank {rank} of the learner is at {place!r}, rank {self.part.rank} at {what!r}")
        return [given for _, given in found]

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace the gradients by their sums over all ranks, in float32.

        The losses of the ranks are parts of one sum with common denominators, so its gradient is the sum of theirs. A
        parameter without a gradient on every rank stays without: to AdamW that is something else than zero.
        """
        if self._link is None:
            return
        self.gather("sum_gradients")
        parameters = [p for p in parameters if not is_shard(p)]  # those were summed in the backward pass
        has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=self.device)
        self._sum(has)
        gradients = []
        for p, ranks in zip(parameters, has.tolist(), strict=True):
            if ranks:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                gradients.append(p.grad)
        for bucket in buckets(gradients, BUCKET_VALUES):
            if len(bucket) == 1 and bucket[0].is_contiguous():  # without a copy: it may be the embedding
                self._sum(bucket[0])
                continue
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            self._sum(flat)
            for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def spread(self, tensors: Sequence[torch.Tensor], owners: Sequence[int]) -> None:
        """Replace each tensor by that of the rank that owns it; those that are divided stay as they are."""
        if self._link is None:
            return
        self.gather("spread")
        with _Blamed(self._link):
            for tensor, owner in zip(tensors, owners, strict=True):
                if not is_shard(tensor):
                    dist.broadcast(tensor.detach(), owner)

    def collect(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the tensors of all ranks in host memory, on rank 0; the others get their own back."""
        if self._link is None:
            return tensors
        own = [(name, list(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in tensors.items()]
        listed = self.gather("collect", own)
        found = dict(tensors)
        with _Blamed(self._link):
            if self.part.rank:
                for tensor in tensors.values():
                    dist.send(tensor.to(self.device), 0)
                return found
            for rank in range(1, self.part.ranks):
                for name, shape, dtype in listed[rank]:
                    tensor = torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)
                    dist.recv(tensor, rank)
                    found[name] = tensor.cpu()
        return found

    def sum_arrays(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the sums of float32 arrays over all ranks. What one rank fills in and the others leave 0 is exact."""
        if self._link is None:
            return list(arrays)
        self.gather("sum_arrays")
        tensors = [torch.from_numpy(array).to(self.device) for array in arrays]
        for tensor in tensors:
            self._sum(tensor)
        return [tensor.cpu().numpy() for tensor in tensors]

    def check_equal(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Raise RankError unless the parameters are the same bit by bit on all ranks, except for divided ones.

        Each rank does the optimizer's step on its own, so a difference would never go away again.
        """
        if self._link is None:
            return
        whole = [p.detach() for p in parameters if not is_shard(p)]
        sums = torch.stack([p.view(torch.int32).sum(dtype=torch.int64) for p in whole]).tolist()
        found = self.gather("check_equal", sum((i + 1) * value for i, value in enumerate(sums)))
        for rank, value in enumerate(found):
            if value != found[0]:
                raise RankError(f"the weights of rank {rank} of the learner differ from those of rank 0")

    def close(self) -> None:
        """End the other ranks."""
        if self._link is not None:
            self._link.close()
            if dist.is_initialized() and dist.get_backend() == "gloo":  # NCCL's would wait for the ranks that ended
                dist.destroy_process_group()

    def _sum(self, tensor: torch.Tensor) -> None:
        assert self._link is not None
        with _Blamed(self._link):
            dist.all_reduce(tensor)


ALONE = Ranks()


class _Blamed:
    """Context in which torch's errors about the process group become a RankError that names a rank."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RuntimeError):
            raise self._link.blame(error) from error


def buckets(tensors: Sequence[torch.Tensor], values: int) -> Iterator[list[torch.Tensor]]:
    """Yield the tensors in order, as many at once as hold at most `values` numbers; a larger one is alone."""
    bucket: list[torch.Tensor] = []
    total = 0
    for tensor in tensors:
        if bucket and total + tensor.numel() > values:
            yield bucket
            bucket, total = [], 0
        bucket.append(tensor)
        total += tensor.numel()
    if bucket:
        yield bucket
