"""Copies of rows whose gradients are added up in float32."""

from __future__ import annotations

from typing import Any

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
