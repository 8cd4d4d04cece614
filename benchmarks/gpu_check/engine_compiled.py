"""Step 4: the engine as runs on a GPU use it: compiled, with CUDA graphs, and with adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.gpu_check.scenarios import Variant, check_engine, check_lora

if TYPE_CHECKING:
    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup


def check(setup: Setup, record: Record) -> None:
    """Run both scenarios. A CPU compiles nothing, so there only the adapters are new compared with step 3."""
    if not setup.cuda:
        check_lora(setup, record, Variant("float32", compiled=False, async_scheduling=False))
        return
    for async_scheduling in (True, False):
        check_engine(setup, record, Variant("bfloat16", compiled=True, async_scheduling=async_scheduling))
    check_lora(setup, record, Variant("bfloat16", compiled=True, async_scheduling=True))
