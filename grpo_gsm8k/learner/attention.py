"""Attention for packed sequences with shared prompts, registered with transformers as `packed_sdpa`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.learner.batching import SharedPrompt

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKED_SDPA = "packed_sdpa"
# Keywords without an effect here: dropout is off because the engine samples without it, positions are already in the
# rotary embeddings, and the rest are defaults that transformers passes to every implementation.
NEUTRAL = frozenset({"dropout", "position_ids", "use_cache", "cache_position", "past_key_values", "output_attentions"})


def packed_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    *,
    layout: tuple[SharedPrompt, ...] | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention for prompts and completions concatenated along T, as `layout` lists them.

    A completion attends to its prompt and to itself, as if it were alone. No [T, T] mask is built, a prompt is computed
    once for all of its completions, and the result for a sequence does not depend on its neighbors. With a
    `sliding_window` W a token attends to the last W positions of its sequence, its own included. With a `softcap` c a
    score s becomes c tanh(s / c) (Gemma 2, arXiv:2408.00118). query [1, heads, T, d], key and value
    [1, kv_heads, T, d] -> [1, T, heads, d]. Raises UserError for anything else that a model passes.
    """
    if layout is None:
        raise UserError(f"{type(module).__name__} does not pass `layout` to its attention, so packs would leak")
    unknown = sorted(name for name, given in others.items() if given is not None and name not in NEUTRAL)
    if attention_mask is not None or unknown or not getattr(module, "is_causal", True):
        raise UserError(f"{type(module).__name__} needs attention with {unknown or 'a mask of its own'}: not supported")
    attend = _sdpa if softcap is None else _soft_capped
    pieces = [
        attend(query[:, :, piece.rows], _gathered(key, piece), _gathered(value, piece), piece.mask, scaling, softcap)
        for piece in _pieces(layout, sliding_window, query.device)
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2), None


def _sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    _: float | None,
) -> torch.Tensor:
    grouped = query.shape[1] > key.shape[1]
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
    )


def _soft_capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
) -> torch.Tensor:
    """Attention with capped scores, which SDPA has no argument for; the softmax runs in float32 at least."""
    assert softcap is not None
    groups, rows, columns = query.shape[1] // key.shape[1], query.shape[2], key.shape[2]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril()
    scores = scores.masked_fill(~mask, -torch.inf)
    weights = torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    return weights.to(value.dtype) @ value


class Piece(NamedTuple):
    """Rows of T that attend together to their context and themselves; `mask` None: plainly causal."""

    rows: slice
    context: slice
    mask: torch.Tensor | None


def _gathered(tensor: torch.Tensor, piece: Piece) -> torch.Tensor:
    """Concatenate the keys or values of the context with those of the rows."""
    if piece.context.stop == piece.context.start:
        return tensor[:, :, piece.rows]
    return torch.cat([tensor[:, :, piece.context], tensor[:, :, piece.rows]], dim=2)


def _pieces(layout: tuple[SharedPrompt, ...], window: int | None, device: torch.device) -> Iterator[Piece]:
    """Yield the pieces of all prompts and completions in the order of their rows."""
    offset = 0
    for prompt, completions in layout:
        alone = completions[0] if len(completions) == 1 else 0  # a prompt with one completion is one plain sequence
        context = slice(offset, offset + prompt)
        length = prompt + alone
        beyond = window is not None and length > window
        yield Piece(slice(offset, offset + length), slice(0, 0), _mask(length, 0, window, device) if beyond else None)
        offset += length
        for length in completions if len(completions) > 1 else ():
            if length:
                yield Piece(slice(offset, offset + length), context, _mask(length, prompt, window, device))
                offset += length


def _mask(length: int, prompt: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Mark which of `prompt + length` positions each of the last `length` attends to, bool [L, P + L]."""
    causal = torch.ones(length, prompt + length, dtype=torch.bool, device=device).tril(prompt)
    return causal if window is None else causal.triu(prompt - window + 1)


# Kept out of compiled blocks: the sizes of its pieces differ in every micro-batch.
AttentionInterface.register(PACKED_SDPA, torch.compiler.disable(packed_sdpa))
