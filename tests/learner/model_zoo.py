"""Tiny random models of each architecture, and how far the learner is from Hugging Face's own forward pass of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from grpo_gsm8k.algorithms.logprobs import token_logprobs
from grpo_gsm8k.learner.batching import TokenSequence, pack_tokens, token_sequence
from grpo_gsm8k.learner.model import Policy, load_policy
from grpo_gsm8k.tiny.tokenizer import build_tokenizer
from tests.conftest import REPO
from tests.learner.conftest import small_config

VOCAB, WINDOW = 99, 16
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,  # the smallest that vLLM supports on a CPU
    "max_position_embeddings": 128,
    "eos_token_id": 1,
    "bos_token_id": None,
    "pad_token_id": 0,
}
MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": WINDOW}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
EXACT: dict[str, dict[str, Any]] = {
    "Llama": {"model_type": "llama"},
    "Llama, linear RoPE scaling": {"model_type": "llama", "rope": {"rope_type": "linear", "factor": 2.0}},
    "Llama 3 RoPE scaling": {"model_type": "llama", "rope": {**LLAMA3, "original_max_position_embeddings": 32}},
    "Llama, YaRN": {
        "model_type": "llama",
        "rope": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    },
    "SmolLM2": {"model_type": "llama", "tie_word_embeddings": True, "num_key_value_heads": 1},
    "SmolLM3": {"model_type": "smollm3", "no_rope_layers": [1, 0, 1], "no_rope_layer_interval": 2},
    "Qwen2 and 2.5": {"model_type": "qwen2", "tie_word_embeddings": True},
    "Qwen2, windows": {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1, **MIXED},
    "Qwen3": {"model_type": "qwen3"},
    "Gemma": {"model_type": "gemma"},
    "Gemma 2": {
        "model_type": "gemma2",
        "attn_logit_softcapping": 0.5,
        "final_logit_softcapping": 0.3,
        "query_pre_attn_scalar": 8,
        **MIXED,
    },
    "Gemma 3": {"model_type": "gemma3_text", "query_pre_attn_scalar": 8, **MIXED},
    "Mistral": {"model_type": "mistral", "sliding_window": WINDOW},
    "Mistral, no window": {"model_type": "mistral", "sliding_window": None},
    "Phi-3": {"model_type": "phi3", "sliding_window": WINDOW},
    "OLMo 2": {"model_type": "olmo2"},
    "OLMo 3": {"model_type": "olmo3", **MIXED},
    "Granite": {
        "model_type": "granite",
        "logits_scaling": 3.0,
        "attention_multiplier": 0.2,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
    },
}


@dataclass(frozen=True, slots=True)
class Gap:
    """Largest difference of log-probabilities in nats, and the relative difference of the gradient."""

    logprob: float
    gradient: float


def make(name: str, folder: Path) -> Path:
    """Write the tiny model `name` of EXACT into a new folder."""
    settings = {**SIZES, **EXACT[name]}
    rope = settings.pop("rope", None)
    if rope is not None:
        settings["rope_parameters"] = {"rope_theta": 10000.0, **rope}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():  # far from the initial weights, whose logits are nearly equal
            if parameter.ndim > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def sequences(seed: int = 0) -> list[TokenSequence]:
    """Two prompts with completions, all longer than the windows."""
    rng = np.random.default_rng(seed)
    made = []
    for prompt_length, lengths in ((23, (30, 21, 1)), (5, (40,)), (19, (3, 25))):
        prompt = rng.integers(2, VOCAB, size=prompt_length).astype(np.int32)
        made += [token_sequence(prompt, rng.integers(2, VOCAB, size=n).astype(np.int32)) for n in lengths]
    return made


def gap(folder: Path) -> Gap:
    """Compare a packed micro-batch of the learner with Hugging Face's eager forward, one sequence at a time."""
    policy = load_policy(folder, small_config().learner)
    packed = sequences()
    ours, gradient = learner_logprobs(policy, packed)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    plain.train()
    for module in plain.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    theirs = torch.cat([hugging_face_logprobs(plain, s) for s in packed])
    (theirs * weights(len(theirs))).sum().backward()
    wanted = torch.cat([p.grad.flatten() for _, p in sorted(plain.named_parameters()) if p.grad is not None])
    return Gap(float((ours - theirs).detach().abs().max()), float((gradient - wanted).norm() / wanted.norm()))


def weights(count: int) -> torch.Tensor:
    """Weights of the log-probabilities in the loss whose gradients are compared."""
    return torch.linspace(-1, 1, count)


def learner_logprobs(policy: Policy, packed: list[TokenSequence]) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = pack_tokens(packed, policy.device)
    hidden = policy.hidden_states(tokens)[tokens.source_N]
    logprobs, *_ = token_logprobs(hidden, policy.head, tokens.targets_N, 1.0, 16)
    (logprobs * weights(len(logprobs))).sum().backward()
    grads = [p.grad.flatten() for _, p in sorted(policy.model.named_parameters()) if p.grad is not None]
    return logprobs.detach(), torch.cat(grads)


def hugging_face_logprobs(model: Any, sequence: TokenSequence) -> torch.Tensor:
    ids = torch.from_numpy(np.concatenate([sequence.prompt_ids, sequence.completion_ids])).long()[None]
    rows = torch.log_softmax(model(ids, use_cache=False).logits[0, len(sequence.prompt_ids) - 1 : -1].float(), dim=-1)
    return rows.gather(1, ids[0, len(sequence.prompt_ids) :, None])[:, 0]


def changed(folder: Path, target: Path, **values: Any) -> Path:
    """Copy a model with other entries in config.json."""
    import json
    import shutil

    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**copy.deepcopy(config), **values}))
    return target


REFUSED = {
    **dict.fromkeys(
        ("opt", "stablelm", "gpt2", "gpt_neox", "falcon", "bloom", "mpt", "phi"), "keep packed sequences apart"
    ),
    **dict.fromkeys(
        ("qwen3_5", "lfm2", "mamba2", "jamba", "recurrent_gemma", "granitemoehybrid"), "recurrent or convolutional"
    ),
    "gpt_oss": "attention sinks",
    "gemma3": "multimodal",
    **dict.fromkeys(("mixtral", "cohere2", "deepseek_v3"), "not been compared"),
}


def rows() -> list[str]:
    """Rows of the table in docs/models.md, without measured numbers."""
    exact = [f"| {name} | `{settings['model_type']}` | exact |" for name, settings in EXACT.items()]
    return exact + [f"| | `{name}` | refused: " for name in REFUSED]


def main() -> None:
    """Measure all models, print the table and write it to docs/models.md."""
    import tempfile

    from grpo_gsm8k.errors import UserError
    from grpo_gsm8k.learner.architectures import check_trainable

    lines = [
        "| architecture | `model_type` | | log-probability gap, nats | gradient gap, relative |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as artifacts:
        for index, (name, settings) in enumerate(EXACT.items()):
            found = gap(make(name, Path(artifacts) / str(index)))
            lines.append(
                f"| {name} | `{settings['model_type']}` | exact | {found.logprob:.1e} | {found.gradient:.1e} |"
            )
        for name in REFUSED:
            (Path(artifacts) / "config.json").write_text(f'{{"model_type": "{name}"}}')
            try:
                check_trainable(Path(artifacts), 128)
            except UserError as error:
                reason = str(error).split("cannot be trained, ")[1].split(": use one of")[0]
                lines.append(f"| | `{name}` | refused: {reason} | | |")
    page = REPO / "docs" / "models.md"
    text = page.read_text().split("| architecture |")[0] + "\n".join(lines) + "\n"
    page.write_text(text)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
