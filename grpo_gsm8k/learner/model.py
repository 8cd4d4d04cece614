"""The policy: a Hugging Face causal language model in float32 with attention for packed sequences."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from grpo_gsm8k.algorithms.logprobs import OutputHead
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.learner.architectures import SCALED, SOFT_CAPPED
from grpo_gsm8k.learner.attention import PACKED_SDPA
from grpo_gsm8k.learner.oom import is_out_of_memory
from grpo_gsm8k.learner.sharding import Shards, divide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from grpo_gsm8k.config import LearnerConfig
    from grpo_gsm8k.learner.batching import PackedTokens
    from grpo_gsm8k.learner.ranks import Ranks


class Policy:
    """A causal language model that gives training access to hidden states and the output head."""

    def __init__(self, model: Any, compute_dtype: torch.dtype, is_adapter: bool = False) -> None:
        """`model` is a Hugging Face causal model or a peft model around one; products run in `compute_dtype`."""
        self.model = model
        self.is_adapter = is_adapter
        self._causal: Any = model.get_base_model() if self.is_adapter else model
        self._compute_dtype = compute_dtype
        self._device: torch.device = next(model.parameters()).device
        self.shards: Shards | None = None

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

    @property
    def architecture_config(self) -> Any:
        """Configuration of the Hugging Face model."""
        return self._causal.config

    @property
    def computes_in_float32(self) -> bool:
        """Whether forward passes run in float32."""
        return self._compute_dtype == torch.float32 and not self.is_quantized

    @property
    def is_quantized(self) -> bool:
        """Whether the base has weights of 4 bits."""
        return bool(getattr(self._causal, "is_loaded_in_4bit", False))

    @contextlib.contextmanager
    def plain_attention(self) -> Iterator[Any]:
        """Yield the causal model with Hugging Face's own attention in place of the packed one."""
        self._causal.set_attn_implementation("eager")
        try:
            yield self._causal
        finally:
            self._causal.set_attn_implementation(PACKED_SDPA)

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
    def head(self) -> OutputHead:
        """Output head; its scale and soft cap are those of the architecture."""
        config = self._causal.config
        scale = 1.0 / config.logits_scaling if config.model_type in SCALED else 1.0
        softcap = config.final_logit_softcapping if config.model_type in SOFT_CAPPED else None
        return OutputHead(self._causal.get_output_embeddings().weight, scale, softcap)

    def divide(self, ranks: Ranks, name: str) -> None:
        """Move the model to the device of its rank, its blocks divided among all ranks; see `sharding.Shards`."""
        divide(self._causal.base_model, self._causal.base_model.layers, ranks, self._compute_dtype)
        self._causal.get_output_embeddings().to(ranks.device)
        self._device = ranks.device
        self.shards = Shards(ranks, name)

    def together(self) -> AbstractContextManager[None]:
        """Return the context of passes that are not retried: of a divided model, torch's errors name a rank."""
        return contextlib.nullcontext() if self.shards is None else self.shards.ranks.blaming()

    def compile_blocks(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compile each transformer block with dynamic shapes; `backend` is that of torch.compile."""
        for block in self._causal.base_model.layers:
            block.compile(dynamic=True, backend=backend)

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
            yield from self.whole_tensors()

    def whole_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield all parameters; those of a divided model are gathered one after the other."""
        named = self._causal.named_parameters()
        yield from ((name, p.detach()) for name, p in named) if self.shards is None else self.shards.whole(named)

    def saved_tensors(self) -> dict[str, torch.Tensor]:
        """Return what a checkpoint holds of the model, by the names of its state; of an adapter that alone.

        These are the live weights, or copies in host memory of a divided model's.
        """
        if self.shards is not None:
            return {
                name: tensor.to("cpu", copy=True) for name, tensor in self.shards.whole(self.model.state_dict().items())
            }
        tensors = dict(self.named_parameters()) if self.is_adapter else self.model.state_dict()
        return {name: tensor.detach() for name, tensor in tensors.items()}


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
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=PACKED_SDPA,
            use_safetensors=True,
            output_loading_info=True,
            **quantized,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{folder} cannot be loaded: {' '.join(str(error).split())}") from error
    _check_complete(folder, info)
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise UserError(f"{folder}: models whose output head has a bias are not supported")
    if not quantized and config.shard != "full":  # that moves block by block: the whole may not fit
        model.to(config.device)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On CPUs with bf16 instructions bitsandbytes repacks the 4 bits at the first forward pass in evaluation
            # mode. That raises if the width is not a multiple of 64, and `lora.merged_tensors` could not read them.
            module.support_avx512bf16_for_cpu = False
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the engine samples without dropout; the ratio compares like with like
    return model


def _check_complete(folder: Path, info: dict[str, Any]) -> None:
    """Raise UserError for a tensor that is missing, which would stay random, or that the model has no place for."""
    for key, problem in (("missing_keys", "lacks"), ("unexpected_keys", "has the unexpected tensor")):
        names = sorted(name for name in info[key] if not name.endswith("inv_freq"))
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(
                f"{folder}: the checkpoint {problem} {names[0]}{more}: its weights do not belong to its config.json"
            )
