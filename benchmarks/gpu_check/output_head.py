"""Step 13: the learner's chunked output head against Liger's fused linear cross-entropy: seconds, memory, values.

Liger needs Triton, which has no CPU backend in its released packages, so this runs on a GPU. It is not a dependency
of the project: `pip install --no-deps liger-kernel` before the check. A fused head is worth an option only if it is
faster here.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.gpu_check.outcome import StepSkippedError, require

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup

ROWS, HIDDEN, VOCAB, CHUNK = 8192, 1536, 151936, 2048  # a micro-batch of Qwen2.5-1.5B with the default settings
TIMES = 5
TOLERANCE = 0.02  # of the mean loss, both in bfloat16


def check(setup: Setup, record: Record) -> None:
    """Fail if the two losses differ."""
    if not setup.cuda:
        raise StepSkippedError("Triton has no CPU backend")
    if importlib.util.find_spec("liger_kernel") is None:
        raise StepSkippedError("liger-kernel is not installed: pip install --no-deps liger-kernel")
    import torch

    torch.manual_seed(0)
    head = torch.randn(VOCAB, HIDDEN, device=setup.device, dtype=torch.bfloat16).mul_(0.02).requires_grad_()
    hidden = torch.randn(ROWS, HIDDEN, device=setup.device, dtype=torch.bfloat16).requires_grad_()
    targets = torch.randint(0, VOCAB, (ROWS,), device=setup.device)
    losses = {}
    for name, loss in (("chunked", _chunked), ("liger", _liger)):
        losses[name], seconds, peak = _measured(lambda loss=loss: loss(hidden, head, targets), (hidden, head))
        record(f"{name}: seconds forward and backward", seconds)
        record(f"{name}: peak GiB", peak / 2**30)
    gap = abs(losses["chunked"] - losses["liger"])
    record("difference of the losses", gap)
    require(gap <= TOLERANCE, f"the losses differ by {gap:.4g}")


def _chunked(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    from grpo_gsm8k.algorithms.logprobs import OutputHead, token_logprobs

    return -token_logprobs(hidden, OutputHead(head), targets, 1.0, CHUNK).logprobs_N.mean()


def _liger(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss: torch.Tensor = LigerFusedLinearCrossEntropyLoss()(head, hidden, targets)
    return loss


def _measured(loss: Callable[[], torch.Tensor], leaves: tuple[torch.Tensor, ...]) -> tuple[float, float, int]:
    """Return the loss, the median seconds of a pass after a first one that compiles, and the peak in bytes."""
    import torch

    seconds: list[float] = []
    value = 0.0
    for _ in range(TIMES + 1):
        for leaf in leaves:
            leaf.grad = None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        made = loss()
        made.backward()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        value = float(made)
    return value, statistics.median(seconds[1:]), torch.cuda.max_memory_allocated()
