"""The learner's fast paths: which ones are active on this machine, and why the others are not."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.config.cpu_precision import has_bf16
from grpo_gsm8k.learner.attention_choice import ATTENTION_NAMES, attention_kind
from grpo_gsm8k.tracking.cpu_allocator import PRELOAD, installed_allocator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpo_gsm8k.config import Config


@dataclass(frozen=True, slots=True)
class FastPath:
    """One fast path in the doctor's report."""

    name: str
    active: bool
    reason: str


def fast_paths(config: Config, model: Mapping[str, Any] | None = None) -> list[FastPath]:
    """Return the fast paths of `config.learner` on its device; `model` is the content of the model's config.json."""
    learner = config.learner
    cuda = learner.device.startswith("cuda")
    return [
        FastPath("prompts computed once per group", True, "always; learner/batching.py"),
        FastPath("padding-free micro-batches", True, f"always; learner.token_budget={learner.token_budget}"),
        FastPath("chunked log-probabilities", True, f"always; learner.logprob_chunk={learner.logprob_chunk}"),
        _attention(config, model or {}),
        _bf16(learner.dtype, cuda),
        *([] if cuda else [_allocator()]),
        _switch("torch.compile", learner.compile, "learner.compile", _compiler(cuda)),
        _switch("gradient checkpointing", learner.gradient_checkpointing, "learner.gradient_checkpointing", ""),
        _switch("8-bit Adam", learner.optimizer == "adamw_8bit", "learner.optimizer", _bitsandbytes()),
        _switch("optimizer in host memory", learner.offload_optimizer, "learner.offload_optimizer", ""),
        _switch("4-bit base (NF4)", learner.quantization == "nf4", "learner.quantization", _bitsandbytes()),
        _switch("adapter (LoRA)", learner.lora.enabled, "learner.lora.enabled", ""),
    ]


def _attention(config: Config, model: Mapping[str, Any]) -> FastPath:
    """Name the attention that the learner will run; in pieces on a GPU it is exact, but slower."""
    learner = config.learner
    if not learner.device.startswith("cuda"):
        return FastPath("attention", True, ATTENTION_NAMES["pieces"])
    import torch  # lazy: only a GPU's paths need it

    if int(learner.device.removeprefix("cuda:")) >= torch.cuda.device_count():
        missing = f"torch does not see {learner.device}: check the driver, or set learner.device=cpu"
        return FastPath("attention", False, missing)
    kind = attention_kind(
        learner.device,
        learner.dtype,
        softcap=model.get("attn_logit_softcapping") is not None,
        deterministic=learner.deterministic,
        head_dim=_head_dim(model),
        capability=torch.cuda.get_device_capability(learner.device),
    )
    return FastPath("attention", kind != "pieces", ATTENTION_NAMES[kind])


def _head_dim(model: Mapping[str, Any]) -> int:
    """Return the width of an attention head; 64 if `model` does not say."""
    heads = model.get("num_attention_heads")
    return int(model.get("head_dim") or (model["hidden_size"] // heads if heads else 64))


def _bf16(dtype: str, cuda: bool) -> FastPath:
    if dtype != "bfloat16":
        return FastPath("bf16 compute", False, "learner.dtype is float32")
    if cuda:
        import torch

        fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return FastPath("bf16 compute", fast, "tensor cores" if fast else "no GPU with bf16")
    fast = has_bf16()
    why = "the CPU has bf16 instructions" if fast else "no bf16 instructions: learner.dtype=auto is faster here"
    return FastPath("bf16 compute", fast, why)


def _allocator() -> FastPath:
    """Name the allocator of a learner on the CPU."""
    name = "memory allocator"
    if PRELOAD in os.environ:
        return FastPath(name, True, f"as {PRELOAD} says, which is set")
    library = installed_allocator()
    if library is None:
        return FastPath(
            name,
            False,
            "the C library's, which is slower and takes more memory: install tcmalloc "
            "(Debian, Ubuntu: apt-get install libtcmalloc-minimal4)",
        )
    return FastPath(name, True, library)


def _switch(name: str, on: bool, key: str, missing: str) -> FastPath:
    if on:
        return FastPath(name, not missing, missing or f"{key} is set")
    return FastPath(name, False, f"{key} is not set" + (f", and {missing}" if missing else ""))


def _compiler(cuda: bool) -> str:
    if cuda:
        return "" if importlib.util.find_spec("triton") else "triton is not installed"
    return "" if shutil.which("g++") else "g++ is missing"


def _bitsandbytes() -> str:
    return "" if importlib.util.find_spec("bitsandbytes") else "bitsandbytes is not installed"
