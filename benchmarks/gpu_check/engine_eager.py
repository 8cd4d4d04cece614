"""Step 3: the engine without compilation, in float32 and in the precision of runs on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.gpu_check.scenarios import Variant, check_engine

if TYPE_CHECKING:
    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup


def check(setup: Setup, record: Record) -> None:
    """Run the engine's scenario; on a GPU with async scheduling, vLLM's default there."""
    check_engine(setup, record, Variant("float32", compiled=False, async_scheduling=setup.cuda))
    if setup.cuda:
        check_engine(setup, record, Variant("bfloat16", compiled=False, async_scheduling=True))
