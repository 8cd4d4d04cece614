"""Architectures that the learner computes exactly, by `model_type` of config.json; importable without torch.

Each of them is compared with Hugging Face's own forward pass, packed, with shared prompts and beyond its window
(tests/learner/test_architectures.py); docs/models.md has the table.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

EXACT = frozenset(
    "llama qwen2 qwen3 gemma gemma2 gemma3_text mistral phi3 smollm3 olmo2 olmo3 granite".split()  # noqa: SIM905
)
SOFT_CAPPED = frozenset({"gemma2", "gemma3_text"})  # final_logit_softcapping caps the logits
SCALED = frozenset({"granite"})  # logits_scaling divides them
_STATE = "its recurrent or convolutional layers keep a state that would run through packed sequences"
_BLIND = "its attention does not keep packed sequences apart"
_REASONS = {
    **dict.fromkeys(
        [
            "mamba",
            "mamba2",
            "falcon_mamba",
            "falcon_h1",
            "jamba",
            "bamba",
            "zamba",
            "zamba2",
            "recurrent_gemma",
            "rwkv",
            "xlstm",
            "nemotron_h",
            "lfm2",
            "lfm2_moe",
            "granitemoehybrid",
            "qwen3_next",
            "qwen3_5",
            "qwen3_5_text",
            "qwen3_5_moe",
            "minimax",
            "plamo2",
            "olmo_hybrid",
            "kimi_linear",
        ],
        _STATE,
    ),
    **dict.fromkeys(
        [
            "gpt2",
            "gpt_neo",
            "gptj",
            "gpt_neox",
            "opt",
            "bloom",
            "mpt",
            "falcon",
            "phi",
            "stablelm",
            "codegen",
            "biogpt",
            "xglm",
        ],
        _BLIND,
    ),
    "gpt_oss": "its attention sinks are not part of the learner's attention",
    "gemma3": "it is multimodal: save its text model (gemma3_text) as a folder of its own",
}
_ATTENTION = frozenset({"full_attention", "sliding_attention"})
_FIXED_ROPE = frozenset({"default", "linear", "llama3", "yarn"})


def check_trainable(folder: Path, max_model_len: int, key: str = "model.path") -> None:
    """Raise UserError with architecture and reason unless the model's numbers are exact up to this length.

    `key` is the one that led to the folder.
    """
    config = _config(folder)
    kind = str(config.get("model_type"))
    if reason := _refusal(config, kind, max_model_len):
        raise UserError(
            f"{key}={folder}: {kind} cannot be trained, {reason}: use one of {', '.join(sorted(EXACT))} "
            "(docs/models.md)"
        )


def _refusal(config: dict[str, Any], kind: str, max_model_len: int) -> str:
    """Why a model is refused; empty if it is not."""
    odd = sorted(set(config.get("layer_types") or ()) - _ATTENTION)
    if kind not in EXACT:
        return _REASONS.get(kind, _STATE if odd else "its numbers have not been compared with Hugging Face's")
    if odd:
        return f"it has layers of type {odd[0]}"
    if quantization := config.get("quantization_config"):
        return f"its weights are quantized ({quantization.get('quant_method', 'unknown method')})"
    return next((reason for rope in _ropes(config) if (reason := _rope_refusal(rope, config, max_model_len))), "")


def _ropes(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The RoPE settings of all kinds of layers."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    nested = [value for value in found.values() if isinstance(value, dict)]
    return nested or [found]


def _rope_refusal(rope: dict[str, Any], config: dict[str, Any], max_model_len: int) -> str:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in _FIXED_ROPE:
        return ""
    original = rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    if kind == "longrope":
        if original and max_model_len <= int(original):
            return ""
        return (
            f"its RoPE (longrope) changes beyond {original} tokens, also for other sequences of a pack (set "
            f"actor.max_model_len={original} or less)"
        )
    return f"its RoPE ({kind}) changes with the length of the pack or is unknown"


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{folder / 'config.json'} is not a JSON object")
    return config
