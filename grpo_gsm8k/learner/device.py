"""Copies from host to device that the host does not wait for."""

from __future__ import annotations

import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a host tensor to `device`.

    To a GPU it goes by pinned memory: from pageable memory the copy would wait until the GPU has done everything before
    it. torch keeps the pinned block until the copy is done.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
