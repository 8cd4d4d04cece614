"""The learner's part of a GPU whose engine sleeps while the learner learns (`actor.sleep_between_updates`)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from grpo_gsm8k.config.gpu_shares import learner_bytes, learner_bytes_alone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grpo_gsm8k.config import Config


@contextmanager
def engine_asleep(config: Config) -> Iterator[None]:
    """Let the learner take the sleeping engine's memory, and give it back at the end.

    What outlasts an update (weights, gradients, optimizer state) must fit beside an engine that is awake; preflight
    checks that. Without `actor.sleep_between_updates` nothing changes.
    """
    if not config.actor.sleep_between_updates:
        yield
        return
    device = config.learner.device
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(learner_bytes_alone(config, total) / total, device)
    try:
        yield
    finally:
        torch.cuda.empty_cache()  # blocks that are only cached would keep the engine from waking
        torch.cuda.set_per_process_memory_fraction(learner_bytes(config, total) / total, device)
