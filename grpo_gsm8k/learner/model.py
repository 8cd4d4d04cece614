"""The policy: a Hugging Face causal language model in float32 with attention for packed sequences."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AutoModelForCausalLM

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.learner.batching import SharedPrompt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from grpo_gsm8k.config import LearnerConfig
    from grpo_gsm8k.learner.batching import PackedTokens

PACKED_SDPA = "packed_sdpa"


def packed_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    *,
    layout: tuple[SharedPrompt, ...] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention for prompts and completions concatenated along T, as `layout` lists them.

    A completion attends to its prompt and to itself, as if it were alone. No [T, T] mask is built, a prompt is computed
    once for all of its completions, and the result for a sequence does not depend on its neighbors.
    query [1, heads, T, d], key and value [1, kv_heads, T, d] -> [1, T, heads, d].
    """
    assert attention_mask is None
    pieces = [
        F.scaled_dot_product_attention(
            query[:, :, rows],
            _gathered(key, context, rows),
            _gathered(value, context, rows),
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=query.shape[1] > key.shape[1],
        )
        for rows, context, mask in _pieces(layout or (SharedPrompt(query.shape[2], ()),), query.device)
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2), None


def _gathered(tensor: torch.Tensor, context: slice, rows: slice) -> torch.Tensor:
    """Concatenate the keys or values of the context with those of the rows."""
    if context.stop == context.start:
        return tensor[:, :, rows]
    return torch.cat([tensor[:, :, context], tensor[:, :, rows]], dim=2)


def _pieces(
    layout: tuple[SharedPrompt, ...], device: torch.device
) -> Iterator[tuple[slice, slice, torch.Tensor | None]]:
    """Yield rows of T that attend together, their context, and a mask unless attention is plainly causal."""
    offset = 0
    for prompt, completions in layout:
        alone = completions[0] if len(completions) == 1 else 0  # a prompt with one completion is one plain sequence
        context = slice(offset, offset + prompt)
        yield slice(offset, offset + prompt + alone), slice(0, 0), None
        offset += prompt + alone
        for length in completions if len(completions) > 1 else ():
            if length:
                mask = torch.ones(length, prompt + length, dtype=torch.bool, device=device).tril(prompt)
                yield slice(offset, offset + length), context, mask
                offset += length


# Kept out of compiled blocks: the sizes of its pieces differ in every micro-batch.
AttentionInterface.register(PACKED_SDPA, torch.compiler.disable(packed_sdpa))


class Policy:
    """A causal language model that gives training access to hidden states and the output head."""

    def __init__(self, model: Any, compute_dtype: torch.dtype, is_adapter: bool = False) -> None:
        """`model` is a Hugging Face causal model or a peft model around one; products run in `compute_dtype`."""
        self.model = model
        self.is_adapter = is_adapter
        self._causal: Any = model.get_base_model() if self.is_adapter else model
        self._compute_dtype = compute_dtype
        self._device: torch.device = next(model.parameters()).device

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self._device

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of forward passes: bf16 autocast, or nothing in float32."""
        if self._compute_dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._compute_dtype)

    @contextlib.contextmanager
    def inference(self, exact: bool = False) -> Iterator[None]:
        """Switch off gradients and dropout; `exact` uses the precision of the weights, not the compute precision."""
        self.model.eval()
        try:
            with torch.no_grad(), contextlib.nullcontext() if exact else self.autocast():
                yield
        finally:
            self.model.train()

    def without_adapter(self) -> AbstractContextManager[None]:
        """Switch the adapter off: its base is the reference of a LoRA run. Raises for a model without an adapter."""
        context: AbstractContextManager[None] = self.model.disable_adapter()
        return context

    def hidden_states(self, tokens: PackedTokens) -> torch.Tensor:
        """Compute the last hidden states of the packed tokens, [T, H]."""
        output = self._causal.base_model(
            input_ids=tokens.input_ids_T[None],
            position_ids=tokens.position_ids_T[None],
            use_cache=False,
            layout=tokens.layout,
        )
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden

    @property
    def hidden_size(self) -> int:
        """Width H of the hidden states."""
        size: int = self._causal.config.get_text_config().hidden_size
        return size

    @property
    def head(self) -> torch.Tensor:
        """Output embedding [V, H]."""
        weight: torch.Tensor = self._causal.get_output_embeddings().weight
        return weight

    def compile_blocks(self) -> None:
        """Compile each transformer block with dynamic shapes."""
        for block in self._causal.base_model.layers:
            block.compile(dynamic=True)

    def trunk_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Return the trainable parameters below the output head."""
        return [(name, p) for name, p in self._causal.base_model.named_parameters() if p.requires_grad]

    def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Return the trainable parameters, each once (a tied head has the name of the embedding)."""
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def merged_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the effective weights by the names of the plain model: adapters are added to their base."""
        if self.is_adapter:
            from grpo_gsm8k.learner import lora

            yield from lora.merged_tensors(self._causal)
        else:
            yield from ((name, p.detach()) for name, p in self._causal.named_parameters())


def load_policy(folder: Path, config: LearnerConfig, adapter: Path | None = None) -> Policy:
    """Load the policy to train from a local folder: float32 masters, or a frozen base with float32 adapters.

    `adapter` is that of a checkpoint; without one, `config.lora` creates a new adapter if it is enabled. Raises
    UserError for an architecture that cannot be trained.
    """
    if config.lora.enabled:
        from grpo_gsm8k.learner import lora  # peft takes seconds to import

        quantized = {"quantization_config": lora.nf4_config(), "device_map": {"": config.device}}
        base = _load(folder, config, getattr(torch, config.dtype), quantized if config.quantization == "nf4" else {})
        model = lora.wrap(base, config.lora) if adapter is None else lora.load(base, adapter)
    else:
        model = _load(folder, config, torch.float32, {})
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if config.lora.enabled:
            model.enable_input_require_grads()
    policy = Policy(model, getattr(torch, config.dtype), config.lora.enabled)
    if config.compile:
        policy.compile_blocks()
    model.train()
    return policy


def load_reference(folder: Path, config: LearnerConfig) -> Policy:
    """Load a frozen model in the compute precision."""
    dtype = getattr(torch, config.dtype)
    model = _load(folder, config, dtype, {})
    model.requires_grad_(False)
    return Policy(model, dtype)


def _load(folder: Path, config: LearnerConfig, dtype: torch.dtype, quantized: dict[str, Any]) -> Any:
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation=PACKED_SDPA,
        use_safetensors=True,
        **quantized,
    )
    if model.get_output_embeddings().bias is not None:
        raise UserError("model.path: models whose output head has a bias are not supported")
    if not quantized:
        model.to(config.device)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On CPUs with bf16 instructions bitsandbytes repacks the 4 bits at the first forward pass in evaluation
            # mode. That raises if the width is not a multiple of 64, and `lora.merged_tensors` could not read them.
            module.support_avx512bf16_for_cpu = False
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the engine samples without dropout; the ratio compares like with like
    return model
