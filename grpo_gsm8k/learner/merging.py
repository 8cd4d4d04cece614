"""Base and adapter as one plain model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from grpo_gsm8k.learner.model import load_policy

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.config import LearnerConfig


def write_merged(config: LearnerConfig, base: Path, adapter: Path, target: Path) -> None:
    """Write the merged model in `config.dtype` with its tokenizer into the existing folder `target`.

    A base in 4 bits is merged as the numbers those bits stand for: what the adapter was trained on.
    """
    policy = load_policy(base, config, adapter=adapter)
    dtype = getattr(torch, config.dtype)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, use_safetensors=True)
    tensors = {name: tensor.to("cpu", dtype) for name, tensor in policy.merged_tensors()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    tied = set(model.all_tied_weights_keys or ())
    assert not unexpected, unexpected
    assert set(missing) <= tied, missing
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(base).save_pretrained(target)
