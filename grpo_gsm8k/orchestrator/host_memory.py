"""Memory of the machine and of each process of a run, as it is when an update ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.runtime.process import Worker

GIB: Final = 2**30


def memory_metrics(actors: Sequence[Worker], learner: Worker | None) -> dict[str, float]:
    """Return the `mem/*` metrics in GiB; a process that has ended, or is on another machine, has none."""
    here = [actor.pid for actor in actors if actor.here and actor.pid is not None]
    machine = psutil.virtual_memory()
    held = {
        "mem/host_used": machine.total - machine.available,
        "mem/orchestrator_rss": resident_bytes([os.getpid()]),
        "mem/learner_rss": None if learner is None or learner.pid is None else resident_bytes([learner.pid]),
        "mem/actor_rss": resident_bytes(here) if here else None,
        "mem/actor_gpu_held": sum(actor.beat.gpu_bytes for actor in actors) or None,  # 0: on a CPU
    }
    return {name: size / GIB for name, size in held.items() if size is not None}


def resident_bytes(pids: Sequence[int]) -> int | None:
    """Return the resident memory of these processes together; None if one of them has ended."""
    try:
        return sum(int(psutil.Process(pid).memory_info().rss) for pid in pids)
    except psutil.NoSuchProcess:
        return None
