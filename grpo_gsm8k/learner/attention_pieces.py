"""Attention for packed sequences by `scaled_dot_product_attention`: on CPUs, in float32, and with a soft cap there.

Segments with the same context and similar lengths are computed together, padded on the right. Padding needs no mask of
its own: a padded key comes after every real query of its row, and the outputs of padded queries are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from grpo_gsm8k.learner.attention_rows import Block, Copies, copied, own_rows
from grpo_gsm8k.learner.device import to_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.learner.layout import Layout, Segment

# Query-key pairs that padding may add: for each call saved, and as a share of all. A call costs about as much as 2,000
# pairs of the tiny model (90 us with its backward pass); of a larger model's pairs, few are worth a call.
SPARE_PAIRS = 2000
SPARE_SHARE = 0.25


class Piece(NamedTuple):
    """B segments of the same context, padded to R rows and K = context + R keys; `mask_RK` None: plainly causal."""

    segments: int
    rows: int
    keys: int
    mask_RK: torch.Tensor | None


class Pieces(NamedTuple):
    """All pieces of a micro-batch, and the copies of its T rows that are their padded queries and keys."""

    pieces: tuple[Piece, ...]
    queries: Copies  # sum of B R
    keys: Copies  # sum of B K


def attend_in_pieces(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Compute attention; shapes as in `packed_sdpa`."""
    plan = layout.built(("pieces", window), lambda: build_pieces(layout.segments, window, query.device))
    query, key, value = (rows[0].transpose(0, 1) for rows in (query, key, value))  # [T, heads, d]
    queries = copied(query, plan.queries).split([p.segments * p.rows for p in plan.pieces])
    keys = copied(key, plan.keys).split([p.segments * p.keys for p in plan.pieces])
    values = copied(value, plan.keys).split([p.segments * p.keys for p in plan.pieces])
    outputs = []
    for piece, q, k, v in zip(plan.pieces, queries, keys, values, strict=True):
        q, k, v = (
            rows.unflatten(0, (piece.segments, length)).transpose(1, 2)
            for rows, length in ((q, piece.rows), (k, piece.keys), (v, piece.keys))
        )
        if softcap is None:
            out = _sdpa(q, k, v, piece.mask_RK, scaling)
        else:
            out = soft_capped(q, k, v, piece.mask_RK, scaling, softcap)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return own_rows(torch.cat(outputs), plan.queries)[None]


def build_pieces(segments: Sequence[Segment], window: int | None, device: torch.device) -> Pieces:
    """Join the segments into pieces; pure in its arguments."""
    groups = _joined(segments)
    pieces = tuple(_piece(group, window, device) for group in groups)
    return Pieces(pieces, _copies(groups, device, with_context=False), _copies(groups, device, with_context=True))


def _piece(group: list[Segment], window: int | None, device: torch.device) -> Piece:
    context, rows = group[0].context, group[0].length
    plain = not context and (window is None or rows <= window)
    return Piece(len(group), rows, context + rows, None if plain else causal_mask(rows, context, window, device))


def _copies(groups: list[list[Segment]], device: torch.device, with_context: bool) -> Copies:
    """Return the groups' rows, each segment filled up to its group's longest; keys have their context before them."""
    total = sum(segment.length for group in groups for segment in group)
    rows, fillers, shared = [], [], dict[int, list[Block]]()
    own_T = np.empty(total, dtype=np.int64)
    offset = 0
    for group in groups:
        first, longest = group[0].context_start, group[0].length
        context = group[0].context if with_context else 0
        if context:
            shared.setdefault(first, []).append(Block(offset, len(group), context + longest, context))
        for segment in group:
            own = np.arange(longest)
            # A filler repeats the segment's first row, so that every index exists.
            rows += [first + np.arange(context), segment.start + np.where(own < segment.length, own, 0)]
            offset += context
            own_T[segment.start : segment.start + segment.length] = offset + own[: segment.length]
            fillers.append(offset + own[segment.length :])
            offset += longest
    rows_C = np.concatenate(rows)
    identical = len(rows_C) == total and bool((rows_C == np.arange(total)).all())
    index = [to_device(torch.from_numpy(part), device) for part in (rows_C, own_T, np.concatenate(fillers))]
    return Copies(index[0], index[1], index[2], shared, identical)


def causal_mask(rows: int, context: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Mark which of `context + rows` positions each of the last `rows` attends to, bool [R, K]."""
    causal = torch.ones(rows, context + rows, dtype=torch.bool, device=device).tril(context)
    return causal if window is None else causal.triu(context - window + 1)


def soft_capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask_RK: torch.Tensor | None,
    scaling: float | None,
    softcap: float,
) -> torch.Tensor:
    """Attention with capped scores, which SDPA has no argument for; the softmax runs in float32 at least."""
    groups, rows, columns = query.shape[1] // key.shape[1], query.shape[2], key.shape[2]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    if mask_RK is None:
        mask_RK = torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril()
    scores = scores.masked_fill(~mask_RK, -torch.inf)
    weights = torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    return weights.to(value.dtype) @ value


def _sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask_RK: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and query.is_cuda:
        # torch's memory-efficient CUDA kernel takes a mask but no grouped heads, and the only one that takes both
        # keeps all scores.
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        groups = 1
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask_RK, is_causal=mask_RK is None, scale=scaling, enable_gqa=groups > 1
    )


def _joined(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Group segments of the same context, the longest first, as long as padding adds few query-key pairs."""
    by_context: dict[tuple[int, int], list[Segment]] = {}
    for segment in segments:
        by_context.setdefault((segment.context_start, segment.context), []).append(segment)
    groups: list[list[Segment]] = []
    for same in by_context.values():
        longest_first = sorted(same, key=lambda s: -s.length)
        group = [longest_first[0]]
        for segment in longest_first[1:]:
            if _padding_is_small([*group, segment]):
                group.append(segment)
            else:
                groups.append(group)
                group = [segment]
        groups.append(group)
    return groups


def _padding_is_small(group: list[Segment]) -> bool:
    """Whether padding all segments to the first one's length adds few query-key pairs."""
    pairs = [s.length * (s.context + s.length) for s in group]
    return len(group) * pairs[0] <= sum(pairs) * (1 + SPARE_SHARE) + SPARE_PAIRS * (len(group) - 1)
