"""Attention for packed sequences by one call of torch's `varlen_attn`: FlashAttention-2, on CUDA, in 16 bits.

Every segment is one sequence of the kernel: its rows are the queries, in place, and its keys are the rows of its
context and its own, gathered. The kernel aligns its causal mask to the last key, as a context before the rows needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn.attention.varlen import varlen_attn

from grpo_gsm8k.learner.attention_rows import gathered
from grpo_gsm8k.learner.device import to_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.learner.layout import Layout, Segment


class VarlenIndex(NamedTuple):
    """Arguments of the kernel for S sequences with K keys in all; `keys_K` are the rows of T that are gathered."""

    keys_K: torch.Tensor  # int64
    cu_q: torch.Tensor  # int32 [S + 1], first query of each sequence, and their number
    cu_k: torch.Tensor  # int32 [S + 1]
    max_q: int
    max_k: int


def attend_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Compute attention; shapes as in `packed_sdpa`."""
    index = layout.built("varlen", lambda: build_varlen(layout.segments, query.device))
    out = varlen_attn(
        query[0].transpose(0, 1).contiguous(),
        gathered(key, index.keys_K),
        gathered(value, index.keys_K),
        index.cu_q,
        index.cu_k,
        index.max_q,
        index.max_k,
        scale=scaling,
        window_size=kernel_window(window),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, torch.Tensor)  # a tuple only where more than the output is asked for
    return out[None]


def kernel_window(window: int | None) -> tuple[int, int]:
    """Return how many keys before and after its own position a query attends to; -1: all.

    A window of W positions includes the query's own.
    """
    return (-1 if window is None else window - 1, 0)


def build_varlen(segments: Sequence[Segment], device: torch.device) -> VarlenIndex:
    """Build the kernel's arguments; pure in its arguments."""
    keys = [
        np.concatenate(
            [np.arange(s.context_start, s.context_start + s.context), np.arange(s.start, s.start + s.length)]
        )
        for s in segments
    ]
    lengths_q, lengths_k = [s.length for s in segments], [len(part) for part in keys]
    return VarlenIndex(
        to_device(torch.from_numpy(np.concatenate(keys)), device),
        to_device(_cumulative(lengths_q), device),
        to_device(_cumulative(lengths_k), device),
        max(lengths_q),
        max(lengths_k),
    )


def _cumulative(lengths: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
