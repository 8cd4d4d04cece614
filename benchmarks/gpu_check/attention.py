"""Step 2: which attention kernel torch chooses, what a new shape costs it, and whether results are exact.

In a micro-batch every completion attends to its prompt and itself, so shapes hardly ever repeat. A kernel that plans
anew for each shape (cuDNN) is slow by a large factor, and one that falls back to plain products runs out of memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

from benchmarks.gpu_check.outcome import require
from benchmarks.gpu_check.policy_attention import check_policy

if TYPE_CHECKING:
    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup

    Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

HEADS, KV_HEADS, WIDTH = 12, 2, 128  # those of Qwen2.5-1.5B
KERNELS = {0: "plain products", 1: "flash", 2: "memory-efficient", 3: "cuDNN"}  # torch's SDPBackend
SHAPES = 50
TOLERANCE = {torch.bfloat16: 0.02, torch.float32: 1e-4}  # relative to the largest value in float64


def check(setup: Setup, record: Record) -> None:
    """Record kernels and times of each variant; fail if one is inexact, or if the learner's attention is."""
    dtype = torch.bfloat16 if setup.cuda else torch.float32
    longest = 512 if setup.cuda else 48
    query, key, value = inputs(longest // 2, longest, dtype, setup.device)
    choice = torch._fused_sdp_choice(query, key, value, mask(query, key), 0.0, False, scale=0.1, enable_gqa=True)
    record("kernel with a mask", KERNELS.get(choice, str(choice)))
    choice = torch._fused_sdp_choice(query, key, value, None, 0.0, True, scale=0.1, enable_gqa=True)
    record("kernel without a mask", KERNELS.get(choice, str(choice)))
    for name, attend in variants(setup.cuda).items():
        different = [(32 + 7 * i % (longest // 2), 40 + (32 + 7 * i % (longest // 2)) + i) for i in range(SHAPES)]
        equal = [(longest // 2, longest)] * SHAPES
        passes(attend, equal[:3], dtype, setup.device)  # warm up
        new, same = (passes(attend, shapes, dtype, setup.device) for shapes in (different, equal))
        record(f"{name}: ms per new shape", 1000 * new / SHAPES)
        record(f"{name}: ms per repeated shape", 1000 * same / SHAPES)
        error = largest_error(attend, dtype, setup.device)
        record(f"{name}: largest error", error)
        require(error < TOLERANCE[dtype], f"{name} is off by {error:.3g} from float64")
    check_policy(setup, record)


def variants(cuda: bool) -> dict[str, Attend]:
    """Return the ways to attend to a context and oneself, by name; tensors are [1, heads, rows, width]."""
    found: dict[str, Attend] = {
        "mask": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask(q, k), enable_gqa=True),
        "lower right": lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, attn_mask=causal_lower_right(q.shape[2], k.shape[2]), enable_gqa=True
        ),
    }
    if cuda:
        found["lower right, cuDNN off"] = _without_cudnn(found["lower right"])
        found["varlen"] = varlen
    return found


def _without_cudnn(attend: Attend) -> Attend:
    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        before = torch.backends.cuda.cudnn_sdp_enabled()
        torch.backends.cuda.enable_cudnn_sdp(False)
        try:
            return attend(query, key, value)
        finally:
            torch.backends.cuda.enable_cudnn_sdp(before)

    return attention


def varlen(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attend with torch's kernel for sequences of different lengths, here for one; flash aligns to the lower right."""
    from torch.nn.attention.varlen import varlen_attn

    rows, columns = query.shape[2], key.shape[2]
    ends = [torch.tensor([0, n], dtype=torch.int32, device=query.device) for n in (rows, columns)]
    flat = [tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value)]
    out = varlen_attn(*flat, *ends, rows, columns, window_size=(-1, 0), enable_gqa=True)
    assert isinstance(out, torch.Tensor)
    return out.transpose(0, 1)[None]


def mask(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Mark the keys of each query: all of the context, and of its own rows those up to itself."""
    rows, columns = query.shape[2], key.shape[2]
    return torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril(columns - rows)


def inputs(rows: int, columns: int, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    """Return query, key and value that record gradients."""
    generator = torch.Generator().manual_seed(rows * columns)
    sizes = ((HEADS, rows), (KV_HEADS, columns), (KV_HEADS, columns))
    made = [torch.randn(1, heads, length, WIDTH, generator=generator) for heads, length in sizes]
    return [tensor.to(device, dtype).requires_grad_() for tensor in made]


def passes(attend: Attend, shapes: list[tuple[int, int]], dtype: torch.dtype, device: str) -> float:
    """Return the seconds of a forward and a backward pass for each (rows, columns)."""
    made = [inputs(rows, columns, dtype, device) for rows, columns in shapes]
    wait(device)
    started = time.perf_counter()
    for query, key, value in made:
        attend(query, key, value).sum().backward()
    wait(device)
    return time.perf_counter() - started


def largest_error(attend: Attend, dtype: torch.dtype, device: str) -> float:
    """Return the largest error of output and gradients against float64, relative to the largest value of each."""
    tensors = inputs(40, 100, dtype, device)
    weights = torch.linspace(-1, 1, WIDTH, dtype=torch.float64)
    found = _output_and_gradients(attend, tensors, weights.to(device, dtype))
    exact = [t.detach().double().cpu().requires_grad_() for t in tensors]
    expected = _output_and_gradients(in_float64, exact, weights)
    return max(float((a.double().cpu() - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))


def in_float64(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attend by the definition: softmax of masked scores."""
    key, value = (tensor.repeat_interleave(HEADS // KV_HEADS, dim=1) for tensor in (key, value))
    scores = query @ key.transpose(2, 3) / WIDTH**0.5
    return torch.softmax(scores.masked_fill(~mask(query, key), -torch.inf), -1) @ value


def _output_and_gradients(attend: Attend, tensors: list[torch.Tensor], weights: torch.Tensor) -> list[torch.Tensor]:
    out = attend(*tensors)
    gradients = torch.autograd.grad((out * weights).sum(), tensors)
    return [out.detach(), *gradients]


def wait(device: str) -> None:
    """Wait until the device has finished."""
    if device != "cpu":
        torch.cuda.synchronize()
