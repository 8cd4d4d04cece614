"""Random models of the architectures that the engine tests use, with the tokenizer of the embedded model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
    "initializer_range": 0.2,  # wide, so that log-probabilities of two versions differ
}
TIED = {"llama": False, "qwen3": True, "gemma2": True}


def save_small_model(architecture: str, folder: Path) -> Path:
    """Write a random model of `llama`, `qwen3` or `gemma2` to `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from grpo_gsm8k.tiny.tokenizer import build_tokenizer

    torch.manual_seed(3)
    config = AutoConfig.for_model(architecture, **SIZES, tie_word_embeddings=TIED[architecture])
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder
