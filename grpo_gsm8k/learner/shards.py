"""Tensors of which each rank of the learner has some rows, torch's DTensors, and tensors that are whole everywhere."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor


def is_shard(tensor: torch.Tensor) -> bool:
    """Whether this rank has only some rows of the tensor."""
    return isinstance(tensor, DTensor)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this rank's rows of a tensor, without a copy; a whole tensor as it is."""
    if not isinstance(tensor, DTensor):
        return tensor
    with torch.no_grad():
        rows: torch.Tensor = tensor.to_local()
    return rows


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """Return the whole of a tensor of which each rank has some rows; every rank has to take part."""
    if not isinstance(tensor, DTensor):
        return tensor.detach()
    with torch.no_grad():
        whole: torch.Tensor = tensor.full_tensor()
    return whole


def rows_of(tensor: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Return the rows of `whole` that this rank has of `tensor`."""
    if not isinstance(tensor, DTensor):
        return whole
    chunks = whole.chunk(tensor.device_mesh.size())
    rank = tensor.device_mesh.get_local_rank()
    return chunks[rank] if rank < len(chunks) else whole[:0]


def like(tensor: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return a tensor divided as `tensor` is, of which this rank has `rows`."""
    if not isinstance(tensor, DTensor):
        return rows
    return DTensor.from_local(
        rows, tensor.device_mesh, tensor.placements, shape=tensor.shape, stride=tensor.stride(), run_check=False
    )
