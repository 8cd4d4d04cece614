"""The policy: a Hugging Face causal model in float32 whose attention understands packed sequences."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AutoModelForCausalLM

from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from grpo_gsm8k.learner.batching import MicroBatch

PACKED_SDPA = "packed_sdpa"


def packed_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    *,
    lengths: tuple[int, ...] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each of the sequences of `lengths` that lie one after another in T.

    One call per sequence: no [T, T] mask exists, no work is done across sequences, and a sequence's numbers do not
    depend on its neighbours. query [1, heads, T, d], key and value [1, kv_heads, T, d] -> [1, T, heads, d].
    """
    assert attention_mask is None
    groups = query.shape[1] // key.shape[1]
    sizes = lengths or (query.shape[2],)
    outputs = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=groups > 1)
        for q, k, v in zip(query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2), strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


AttentionInterface.register(PACKED_SDPA, packed_sdpa)


class Policy:
    """A causal language model with the two things that training needs: hidden states and the output head."""

    def __init__(self, model: Any, compute_dtype: torch.dtype) -> None:
        """`model` holds float32 master weights; its matrix products run in `compute_dtype`."""
        self.model = model
        self._compute_dtype = compute_dtype
        self._device: torch.device = next(model.parameters()).device

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._device

    def autocast(self) -> AbstractContextManager[None]:
        """Compute precision of forward passes: bf16 autocast, or nothing in float32."""
        if self._compute_dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._compute_dtype)

    def hidden_states(self, batch: MicroBatch) -> torch.Tensor:
        """Last hidden states [T, H] of the packed tokens."""
        output = self.model.base_model(
            input_ids=batch.input_ids_T[None],
            position_ids=batch.position_ids_T[None],
            use_cache=False,
            lengths=batch.lengths,
        )
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden

    @property
    def head(self) -> torch.Tensor:
        """Output embedding [V, H]."""
        weight: torch.Tensor = self.model.get_output_embeddings().weight
        return weight

    def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Trainable parameters, each once (a tied head has the name of the embedding)."""
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]


def load_policy(folder: Path, device: str, compute_dtype: str) -> Policy:
    """Load float32 master weights from a local folder. Raises UserError for an architecture it cannot train."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=PACKED_SDPA, use_safetensors=True
    )
    if model.get_output_embeddings().bias is not None:
        raise UserError("model.path: models whose output head has a bias are not supported")
    model.to(device)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the engine samples without dropout; the ratio compares like with like
    return Policy(model, getattr(torch, compute_dtype))
