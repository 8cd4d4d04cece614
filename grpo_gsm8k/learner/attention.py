"""Attention for packed sequences with shared prompts, registered with transformers as `packed_sdpa`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.learner.attention_choice import ATTENTION_NAMES, FLASH_CAPABILITY, AttentionKind, attention_kind
from grpo_gsm8k.learner.attention_pieces import attend_in_pieces

if TYPE_CHECKING:
    from grpo_gsm8k.learner.layout import Layout

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
    layout: Layout | None = None,
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
    kind, dtype = _kind_and_dtype(query, softcap)
    _announce(kind, dtype)
    if kind == "pieces":
        return attend_in_pieces(query, key, value, layout, scaling, sliding_window, softcap), None
    # SDPA is on autocast's list and casts by itself; these are not, and rotary embeddings make float32 of queries.
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if kind == "varlen":
        from grpo_gsm8k.learner.attention_varlen import attend_varlen  # a CPU does not need what these two import

        return attend_varlen(query, key, value, layout, scaling, sliding_window), None
    from grpo_gsm8k.learner.attention_flex import attend_flex

    return attend_flex(query, key, value, layout, scaling, sliding_window, softcap, query.is_cuda), None


def _kind_and_dtype(query: torch.Tensor, softcap: float | None) -> tuple[AttentionKind, torch.dtype]:
    """Return the implementation, and the dtype that it computes in: autocast's, where that is on."""
    device = query.device
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else query.dtype
    capability = torch.cuda.get_device_capability(device) if query.is_cuda else FLASH_CAPABILITY
    name = str(dtype).removeprefix("torch.")
    return attention_kind(device.type, name, softcap is not None, False, query.shape[-1], capability), dtype


@functools.cache
def _announce(kind: AttentionKind, dtype: torch.dtype) -> None:
    """Print, once each, what computes the attention: into the learner's log."""
    print(f"attention in {str(dtype).removeprefix('torch.')}: {ATTENTION_NAMES[kind]}", flush=True)


# Kept out of compiled blocks: the sizes of its pieces differ in every micro-batch.
AttentionInterface.register(PACKED_SDPA, torch.compiler.disable(packed_sdpa))
