"""GPU memory of the learner, measured from one update to the next."""

from __future__ import annotations

from typing import Final

import torch

GIB: Final = 2**30


def gpu_peak_metrics(device: str) -> dict[str, float]:
    """Return the most GPU memory in use and held since the previous call, in GiB; empty on a CPU."""
    if not device.startswith("cuda"):
        return {}
    used, held = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    return {"mem/learner_gpu_used": used / GIB, "mem/learner_gpu_held": held / GIB}
