"""Copies of the weights in host memory, in the engine's precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable


class HostCopy:
    """Host memory for the weights that is allocated at the first copy and kept for the run, page-locked for a GPU.

    New memory would cost page faults at each publication, and a GPU copies at full speed into page-locked memory only.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        """Allocate nothing yet; `dtype` is the engine's."""
        self._dtype = dtype
        self._kept: dict[str, torch.Tensor] = {}

    def copy(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Return contiguous tensors on the CPU in the engine's precision; they are valid until the next call.

        A tensor that already is one is returned as it is: its owner must not change it while the result is in use.
        """
        host: dict[str, torch.Tensor] = {}
        devices: set[torch.device] = set()
        for name, tensor in tensors:
            on_gpu = tensor.is_cuda
            if not on_gpu and tensor.dtype == self._dtype and tensor.is_contiguous():
                host[name] = tensor
                continue
            kept = self._memory(name, tensor.shape, on_gpu)
            # Converted on the GPU, so that float32 masters do not cross the bus. The converted copy may be freed before
            # it was read: its memory is reused in the order of the stream.
            kept.copy_(tensor.to(self._dtype) if on_gpu else tensor, non_blocking=on_gpu)
            host[name] = kept
            if on_gpu:
                devices.add(tensor.device)
        for device in devices:
            torch.cuda.synchronize(device)
        return host

    def _memory(self, name: str, shape: torch.Size, page_locked: bool) -> torch.Tensor:
        kept = self._kept.get(name)
        if kept is None or kept.shape != shape:
            kept = self._kept[name] = torch.empty(shape, dtype=self._dtype, pin_memory=page_locked)
        return kept
