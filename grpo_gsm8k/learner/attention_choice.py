"""Which implementation computes the attention of the learner; importable without torch."""

from __future__ import annotations

from typing import Literal

AttentionKind = Literal["pieces", "varlen", "flex"]
ATTENTION_NAMES: dict[AttentionKind, str] = {
    "pieces": "scaled_dot_product_attention, one call for completions of similar length of a prompt",
    "varlen": "FlashAttention-2 inside torch (varlen_attn), one call per layer",
    "flex": "FlexAttention, one compiled kernel per layer",
}
# Limits of the kernels of FlashAttention-2 inside torch (aten/src/ATen/native/transformers/cuda/flash_attn).
FLASH_DTYPES = frozenset({"float16", "bfloat16"})
FLASH_HEAD_MULTIPLE, FLASH_HEAD_MAX = 8, 256
FLASH_CAPABILITY = (8, 0)


def attention_kind(
    device: str,
    dtype: str,
    softcap: bool = False,
    deterministic: bool = False,
    head_dim: int = 64,
    capability: tuple[int, int] = FLASH_CAPABILITY,
) -> AttentionKind:
    """Return the implementation for a device (cpu, cuda, cuda:N), and the dtype that attention computes in.

    `softcap`: the model caps its scores (Gemma 2), which FlashAttention-2 inside torch has no argument for.
    `capability` is the GPU's. Float32 is computed in pieces on every device: exact, while the other two kernels are for
    16 bits. `deterministic` changes nothing, because all three are: FlashAttention-2 and the memory-efficient kernel
    have a deterministic backward pass under torch.use_deterministic_algorithms (attention_backward.cu of torch), and
    FlexAttention's adds up each gradient within one block.
    """
    del deterministic
    if not device.startswith("cuda") or dtype not in FLASH_DTYPES or capability < FLASH_CAPABILITY:
        return "pieces"
    if softcap:
        return "flex"
    fits = head_dim % FLASH_HEAD_MULTIPLE == 0 and head_dim <= FLASH_HEAD_MAX
    return "varlen" if fits else "pieces"
