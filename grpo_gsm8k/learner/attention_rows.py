"""Copies of rows, and the sums of their gradients, which run in float32."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


def gathered(tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Copy the rows `index` of [1, heads, T, d], as [rows, heads, d].

    A row may be copied many times: a prompt's keys are copied for each of its completions. In 16 bits its gradient
    would be rounded after each addition, so the sum runs in float32.
    """
    rows: torch.Tensor = _Gathered.apply(tensor[0].transpose(0, 1), index)
    return rows


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_THD: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(index)
        ctx.shape, ctx.dtype = rows_THD.shape, rows_THD.dtype
        return rows_THD.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (index,) = ctx.saved_tensors
        sum_dtype = torch.promote_types(ctx.dtype, torch.float32)
        total_THD = torch.zeros(ctx.shape, dtype=sum_dtype, device=grads[0].device)
        return total_THD.index_add_(0, index, grads[0].to(sum_dtype)).to(ctx.dtype), None


class Block(NamedTuple):
    """Copies from `start` on: `segments` times `length` of them, each time with the `context` shared rows first."""

    start: int
    segments: int
    length: int
    context: int


class Copies(NamedTuple):
    """C copies of T rows: of each row one that is its own, others as part of a shared context, and fillers.

    Fillers make segments equally long; nothing that is used depends on them, so their gradient is zero.
    """

    rows_C: torch.Tensor  # int64, the row of each copy
    own_T: torch.Tensor  # int64, each row's own copy
    fillers: torch.Tensor  # int64
    shared: dict[int, list[Block]]  # by the context's first row
    identical: bool  # every row once, in its order


def copied(rows_THD: torch.Tensor, copies: Copies) -> torch.Tensor:
    """Return the copies, [C, heads, d]; the gradient of a row is the sum of its copies'.

    Twice as fast on a CPU as `index_select` with its gradient, which adds row after row.
    """
    made: torch.Tensor = rows_THD if copies.identical else _Copied.apply(rows_THD, copies)
    return made


def own_rows(copied_CHD: torch.Tensor, copies: Copies) -> torch.Tensor:
    """Return each row's own copy, [T, heads, d]."""
    found: torch.Tensor = copied_CHD if copies.identical else _Own.apply(copied_CHD, copies)
    return found


class _Copied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_THD: torch.Tensor, copies: Copies) -> torch.Tensor:
        ctx.copies = copies
        return rows_THD.index_select(0, copies.rows_C)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grad_CHD,) = grads
        total_THD = grad_CHD.index_select(0, ctx.copies.own_T)
        wide = torch.promote_types(grad_CHD.dtype, torch.float32)
        for first, blocks in ctx.copies.shared.items():
            context_KHD = total_THD[first : first + blocks[0].context]
            parts = [_context(grad_CHD, block).sum(0, dtype=wide) for block in blocks]
            context_KHD.copy_(sum(parts, start=context_KHD.to(wide)))
        return total_THD, None


class _Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, copied_CHD: torch.Tensor, copies: Copies) -> torch.Tensor:
        ctx.copies = copies
        return copied_CHD.index_select(0, copies.own_T)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        grad_CHD = grads[0].index_select(0, ctx.copies.rows_C)
        return grad_CHD.index_fill_(0, ctx.copies.fillers, 0.0), None


def _context(copied_CHD: torch.Tensor, block: Block) -> torch.Tensor:
    """Return the block's copies of its context, [segments, context, heads, d]."""
    rows = copied_CHD[block.start : block.start + block.segments * block.length]
    return rows.view(block.segments, block.length, *rows.shape[1:])[:, : block.context]
