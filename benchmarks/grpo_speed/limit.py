"""The arithmetic limit: how long an update's matrix products alone take on this machine.

The rate is measured with the model's own matrices, all layers one after the other, so that weights come from memory as
they do in a real pass: for as many rows as sequences run at once (generation), and as a micro-batch has tokens
(learning). Attention's products are counted at the same rate; sampling, norms and the optimizer are not counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.flops import Work, attention_flops, matrix_flops

if TYPE_CHECKING:
    from benchmarks.grpo_speed.workload import Size
    from grpo_gsm8k.preflight.parameters import ModelShape

REPEATS = 3  # the fastest counts


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured FLOP/s of matrix products with the rows of generation and of learning."""

    generating: float
    learning: float


@dataclass(frozen=True, slots=True)
class Limit:
    """Seconds of the matrix products of one update."""

    generation_s: float
    learning_s: float

    @property
    def seconds(self) -> float:
        """Seconds of both, one after the other."""
        return self.generation_s + self.learning_s


def generation_flops(shape: ModelShape, prompt: int, size: Size) -> float:
    """Return the operations of generating, each prompt of `prompt` tokens computed once for its group.

    The prompt's pass gives the first token of each completion; every other token is fed once, but the last.
    """
    prompt_tokens = size.prompts * prompt
    fed = size.completions * (size.tokens - 1)
    matrices = matrix_flops(shape, prompt_tokens + fed, size.prompts + fed)
    pairs = size.prompts * prompt * (prompt + 1) // 2
    pairs += size.completions * sum(prompt + i for i in range(1, size.tokens))
    return matrices + attention_flops(shape, pairs)


def learning_work(prompt: int, size: Size) -> Work:
    """Return the work of the update's passes, each prompt computed once for its group."""
    fed = size.tokens - 1
    tokens = size.prompts * prompt + size.completions * fed
    pairs = size.prompts * prompt * (prompt + 1) // 2 + size.completions * (fed * prompt + fed * (fed + 1) // 2)
    return Work(tokens, size.completions * size.tokens, pairs)


def limit(generation: float, learning: float, rates: Rates) -> Limit:
    """Return the seconds for these operations at these rates."""
    return Limit(generation / rates.generating, learning / rates.learning)


def measure_rates(shape: ModelShape, sequences: int, micro_tokens: int, threads: int) -> Rates:
    """Measure both rates in float32 with so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        weights = [torch.randn(x.outputs, x.inputs) for _ in range(shape.layers) for x in shape.linears]
        weights.append(torch.randn(shape.vocab, shape.hidden))
        return Rates(*(_rate(weights, rows) for rows in (sequences, micro_tokens)))
    finally:
        torch.set_num_threads(before)


def _rate(weights: list[object], rows: int) -> float:
    import torch

    inputs = {weight.shape[1]: torch.randn(rows, weight.shape[1]) for weight in weights}  # type: ignore[attr-defined]
    best = float("inf")
    with torch.no_grad():
        for _ in range(REPEATS):
            started = time.perf_counter()
            for weight in weights:
                torch.nn.functional.linear(inputs[weight.shape[1]], weight)  # type: ignore[attr-defined, arg-type]
            best = min(best, time.perf_counter() - started)
    return sum(2.0 * rows * weight.numel() for weight in weights) / best  # type: ignore[attr-defined]
