"""Models of known shapes with random weights, so that a benchmark needs no download."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths of a decoder-only transformer with tied embeddings; `kind` is transformers' name of the architecture."""

    kind: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int


# The widths are those of the published config.json of each model.
SHAPES: dict[str, Shape] = {
    "tiny": Shape("qwen2", 128, 2, 4, 2, 256, 99),
    "smollm2-135m": Shape("llama", 576, 30, 9, 3, 1536, 49152),
    "qwen2.5-0.5b": Shape("qwen2", 896, 24, 14, 2, 4864, 151936),
    "qwen2.5-1.5b": Shape("qwen2", 1536, 28, 12, 2, 8960, 151936),
    "qwen2.5-3b": Shape("qwen2", 2048, 36, 16, 2, 11008, 151936),
}
CONTEXT = 4096  # positions
PAD, EOS = 0, 1  # as in the embedded model's tokenizer


def write_random_model(name: str, folder: Path, device: str = "cpu", dtype: str = "bfloat16", seed: int = 0) -> Path:
    """Write a model of the shape `name` with random weights, and the embedded model's tokenizer padded to its size.

    Weights are drawn on `device`, because a CPU takes minutes for the large ones.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = SHAPES[name]
    config = AutoConfig.for_model(shape.kind, **config_fields(shape))
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    write_tokenizer(shape.vocab, folder)
    return folder


def config_fields(shape: Shape) -> dict[str, Any]:
    """Return the fields of config.json."""
    return {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocab,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "bos_token_id": None,
    }


def write_tokenizer(vocab: int, folder: Path) -> None:
    """Write the character tokenizer with further tokens `<t99>`, `<t100>`, ..., so that every id has a text."""
    from grpo_gsm8k.tiny.tokenizer import build_tokenizer

    build_tokenizer().save_pretrained(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    entries = content["model"]["vocab"]
    taken = len(entries)
    entries |= {f"<t{i}>": i for i in range(taken, vocab)}
    file.write_text(json.dumps(content), encoding="utf-8")
