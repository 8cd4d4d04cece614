"""LoRA and QLoRA with peft and bitsandbytes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from bitsandbytes.functional import dequantize_4bit
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig

from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from grpo_gsm8k.config import LoraConfig


def wrap(model: Any, config: LoraConfig) -> PeftModel:
    """Wrap `model` in a new adapter (LoRA, arXiv:2106.09685; `rslora` scales it as in arXiv:2312.03732).

    Raises UserError if no layer has a name that `config.targets` lists, or if one of them is an embedding: the
    learner's log-probabilities use the plain head.
    """
    targets: str | list[str] = "all-linear" if config.targets == ["all-linear"] else config.targets
    peft_config = PeftLoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        use_rslora=config.rslora,
    )
    try:
        wrapped = get_peft_model(model, peft_config)
    except ValueError as error:
        raise UserError(f"learner.lora.targets={config.targets}: {error}") from None
    base: Any = wrapped.get_base_model()
    if any(hasattr(layer, "base_layer") for layer in (base.get_input_embeddings(), base.get_output_embeddings())):
        raise UserError(
            f"learner.lora.targets={config.targets}: embeddings and the output head cannot have an adapter: name "
            "linear layers of the blocks, or all-linear"
        )
    return wrapped


def load(model: Any, folder: Path) -> PeftModel:
    """Wrap `model` in the adapter of a checkpoint, trainable."""
    # peft's default device is the first GPU, which may be the actor's.
    return PeftModel.from_pretrained(model, folder, is_trainable=True, torch_device=str(model.device))


def nf4_config() -> BitsAndBytesConfig:
    """Return the settings of 4-bit NormalFloat with double quantization (QLoRA, arXiv:2305.14314)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def merged_tensors(causal: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights of a model with injected adapters, each added to its base, by the plain model's names."""
    for name, p in causal.named_parameters():
        if ".lora_" in name:
            continue
        weight = dequantize_4bit(p.data, p.quant_state) if hasattr(p, "quant_state") else p.detach()
        if name.endswith(".base_layer.weight"):
            layer = causal.get_submodule(name.removesuffix(".base_layer.weight"))
            for adapter in layer.active_adapters:
                weight = weight.float() + layer.get_delta_weight(adapter).detach().float()
        yield name.replace(".base_layer.", "."), weight


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter in the format of vLLM and peft: `adapter_model.safetensors` and `adapter_config.json`."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in get_peft_model_state_dict(model).items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    config = copy.deepcopy(model.peft_config["default"])  # a checkpoint may be written from it in another thread
    config.inference_mode = True
    config.save_pretrained(str(folder))
