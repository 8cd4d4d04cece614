"""Attention for packed sequences by FlexAttention (arXiv:2412.05496): on CUDA, for models with capped scores."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from grpo_gsm8k.learner.device import to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpo_gsm8k.learner.layout import Layout, Segment

    ScoreMod = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    MaskMod = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

BLOCK = 128  # rows and columns of a block: FlexAttention's default


def attend_flex(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
    compiled: bool,
) -> torch.Tensor:
    """Compute attention; shapes as in `packed_sdpa`. What is not `compiled` keeps all scores."""
    attend = _compiled() if compiled else flex_attention
    mask = layout.built(("flex", window), lambda: build_block_mask(layout.segments, window, query.device))
    out: torch.Tensor = attend(
        query,
        key,
        value,
        score_mod=None if softcap is None else _capped(softcap, query.device),
        block_mask=mask,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
        # Deterministic on every GPU, and no other kernel for fewer than 128 rows, which would have to be compiled too.
        kernel_options={"BACKEND": "TRITON"},
    )
    return out.transpose(1, 2)


def build_block_mask(segments: Sequence[Segment], window: int | None, device: torch.device) -> BlockMask:
    """Build the mask from the segments; a [T, T] mask, from which FlexAttention could derive it, is never made."""
    touched = touched_blocks(segments)
    counts = torch.from_numpy(touched.sum(axis=1, dtype=np.int32))
    indices = torch.from_numpy(np.argsort(~touched, axis=1, kind="stable").astype(np.int32))
    tokens = segments[-1].start + segments[-1].length
    return BlockMask.from_kv_blocks(
        to_device(counts, device)[None, None],
        to_device(indices, device)[None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=_mask_mod(segments, window, device),
        seq_lengths=(tokens, tokens),
    )


def touched_blocks(segments: Sequence[Segment]) -> np.ndarray:
    """Mark the blocks with a pair that may attend, bool [blocks of rows, blocks of keys]; others are never computed.

    Windows and the causal order within a block are left to the mask function.
    """
    blocks = -(-(segments[-1].start + segments[-1].length) // BLOCK)
    touched = np.zeros((blocks, blocks), dtype=np.bool_)
    for s in segments:
        first, last = s.start // BLOCK, (s.start + s.length - 1) // BLOCK
        for row in range(first, last + 1):
            touched[row, first : row + 1] = True
        if s.context:
            touched[first : last + 1, s.context_start // BLOCK : (s.context_start + s.context - 1) // BLOCK + 1] = True
    return touched


def _mask_mod(segments: Sequence[Segment], window: int | None, device: torch.device) -> MaskMod:
    """Return whether row q attends to row k, as FlexAttention asks."""
    columns = np.array([(s.start, s.context_start, s.context_start + s.context, s.context - s.start) for s in segments])
    start_T, context_T, end_T, shift_T = (
        to_device(torch.from_numpy(np.repeat(column, [s.length for s in segments]).astype(np.int32)), device)
        for column in columns.T
    )

    def attends(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        own = (k >= start_T[q]) & (k <= q)
        return own | ((k >= context_T[q]) & (k < end_T[q]))

    def attends_within(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        # Positions in the sequence: an own row follows the context, a row of the context counts from its start.
        position_k = torch.where(k >= start_T[q], k + shift_T[q], k - context_T[q])
        return attends(b, h, q, k) & (q + shift_T[q] - position_k < width)

    if window is None:
        return attends
    width = torch.tensor(window, dtype=torch.int32, device=device)
    return attends_within


@functools.cache
def _capped(softcap: float, device: torch.device) -> ScoreMod:
    """Return c tanh(s / c). The cap is a tensor: Inductor cannot lower a Python float in a kernel of dynamic shapes."""
    cap = torch.tensor(softcap, dtype=torch.float32, device=device)

    def capped(score: torch.Tensor, b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return cap * torch.tanh(score / cap)

    return capped


@functools.cache
def _compiled() -> Any:
    """Compile FlexAttention once for all lengths."""
    return torch.compile(flex_attention, dynamic=True)
