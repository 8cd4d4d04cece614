"""Merge an adapter into its base model and write the result as a plain Hugging Face folder."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoModelForCausalLM, AutoTokenizer

from grpo_gsm8k.learner import lora

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.config import LearnerConfig

CPU = torch.device("cpu")


def write_merged(config: LearnerConfig, base: Path, adapter: Path, target: Path) -> None:
    """Merge an adapter that was trained with `config` into its base, in `config.dtype`; arguments as for `merge`."""
    quantized = config.quantization == "nf4"
    merge(base, adapter, target, getattr(torch, config.dtype), torch.device(config.device), quantized)


def merge(
    base: Path,
    adapter: Path,
    target: Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
    quantized: bool = False,
) -> None:
    """Write the merged model in `dtype`, with the tokenizer of `base`, into the existing folder `target`.

    `quantized`: the adapter was trained on the base in NF4, so it is added to the dequantized weights. Each sum of
    weight and adapter is computed in float32 on `device`, one layer at a time to save memory there.
    """
    model = PeftModel.from_pretrained(_load_base(base, dtype, device, quantized), adapter, torch_device=str(device))
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.to(device, torch.float32)
            layer.merge()
            layer.to(CPU, dtype)
    with warnings.catch_warnings(action="ignore"):  # peft warns about every layer that is merged already
        model.merge_and_unload().save_pretrained(target)
    AutoTokenizer.from_pretrained(base).save_pretrained(target)


def _load_base(folder: Path, dtype: torch.dtype, device: torch.device, quantized: bool) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    if quantized:
        nf4 = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, quantization_config=lora.nf4_config(), device_map={"": device}
        )
        # without adapters, these are the dequantized weights; tied names are listed once
        model.load_state_dict(dict(lora.merged_tensors(nf4)), strict=False)
    return model
