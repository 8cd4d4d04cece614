"""Blocks of a model divided among the ranks of the learner: fully sharded data parallel (FSDP2, arXiv:2304.11277).

Each rank keeps its rows of every matrix in a block. A block's matrices are whole only while the block computes; its
gradients are summed over the ranks and divided again in the backward pass. Embedding, head, norms and biases stay
whole on every rank, and are exchanged as without sharding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from grpo_gsm8k.learner.shards import gathered, is_shard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch.distributed.device_mesh import DeviceMesh

    from grpo_gsm8k.learner.ranks import Ranks


class Shards:
    """What a divided model needs of the other ranks beside its passes."""

    def __init__(self, ranks: Ranks, name: str) -> None:
        """`name` tells the models of a session apart, `policy` or `critic`."""
        self.ranks = ranks
        self._name = name

    def whole(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the tensors whole, one after the other: never are two of them gathered at once.

        On the first rank alone this may be called at any time; the others do it when they are told.
        """
        if self.ranks.part.rank == 0:
            self.ranks.announce({"weights_of": self._name})
        for name, tensor in tensors:
            with self.ranks.blaming():
                found = gathered(tensor)
            yield name, found


def divide(root: torch.nn.Module, blocks: Sequence[torch.nn.Module], ranks: Ranks, dtype: torch.dtype) -> None:
    """Divide the matrices of the `blocks`, which are modules of `root`, and move all of `root` to the rank's device.

    Matrices in float32 are gathered in `dtype`, that of the products; their gradients are summed in float32.
    """
    mesh = ranks.mesh()
    in_blocks = {id(tensor) for block in blocks for tensor in (*block.parameters(), *block.buffers())}
    for tensor in (*root.parameters(), *root.buffers()):
        if id(tensor) not in in_blocks:
            tensor.data = tensor.data.to(ranks.device)
    for block in blocks:
        block.to(ranks.device)
        matrices = {p for p in block.parameters() if p.ndim > 1}
        _shard(block, mesh, set(block.parameters()) - matrices, _precision(matrices, dtype))
    whole = {p for p in root.parameters() if not is_shard(p)}
    _shard(root, mesh, whole, MixedPrecisionPolicy(cast_forward_inputs=False))


def _precision(matrices: set[Any], dtype: torch.dtype) -> MixedPrecisionPolicy:
    """Return the precision of a block's exchanges. Inputs are left as they are: autocast is in charge of those."""
    if any(p.dtype != torch.float32 for p in matrices) or dtype == torch.float32:
        return MixedPrecisionPolicy(cast_forward_inputs=False)
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)


def _shard(module: torch.nn.Module, mesh: DeviceMesh, whole: set[Any], precision: MixedPrecisionPolicy) -> None:
    fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=precision, ignored_params=whole)
    assert isinstance(module, FSDPModule)
    # The losses of the ranks are parts of one sum. Gloo knows plain sums only, so both settings are needed.
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)
