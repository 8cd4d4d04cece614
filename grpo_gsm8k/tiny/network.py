"""Architecture of the embedded model."""

from __future__ import annotations

import torch
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from grpo_gsm8k.tiny.tokenizer import CHARACTERS, MAX_LENGTH

PAD_ID, EOS_ID, SPECIALS = 0, 1, 3


def build_model(seed: int) -> Qwen2ForCausalLM:
    """Return a randomly initialized Qwen2, narrow because the demo trains on one thread."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=SPECIALS + len(CHARACTERS),
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=1,
        intermediate_size=288,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        use_sliding_window=False,
        pad_token_id=PAD_ID,
        bos_token_id=None,
        eos_token_id=EOS_ID,
        dtype="float32",
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=EOS_ID, pad_token_id=PAD_ID, do_sample=False)
    return model
