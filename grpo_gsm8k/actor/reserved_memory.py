"""GPU memory of the engine that runs in this process."""

from __future__ import annotations

import torch


def reserved_gpu_bytes() -> int:
    """Return the bytes that torch's allocator holds on this process's GPU: weights, KV cache and activations."""
    return torch.cuda.memory_reserved() if torch.cuda.is_available() else 0
