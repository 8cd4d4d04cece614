"""Measures how fast torch computes on this CPU. Run as a program, so that the caller need not import torch.

Reads a `RateQuestion` as JSON from its argument and prints a `CpuRates` per number of threads, as JSON lines.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields

import torch

from grpo_gsm8k.preflight.cpu_rates import CpuRates, RateQuestion

Clock = Callable[[], float]
ROWS_GENERATING = 64  # sequences that run at once
ROWS_LEARNING = 1024  # tokens of a micro-batch; more rows are hardly faster
BEYOND_CACHES = 64 * 2**20  # bytes
VALUES = 4 * 2**20  # of an elementwise operation: more bytes than a core's own caches hold
SMALL = 200  # operations that are timed together
ROUNDS = 5  # spread over the second, so that a short disturbance spoils one of them
SECONDS = 0.02  # of each figure in each round, at least one repetition


def measure(question: RateQuestion, threads: int) -> CpuRates:
    """Measure everything once with so many threads."""
    torch.set_num_threads(threads)
    # Of one thread its own time counts, which other processes hardly change; several wait for each other.
    clock = time.thread_time if threads == 1 else time.perf_counter
    dtype = getattr(torch, question.dtype)
    block = sum(inputs * outputs for inputs, outputs in question.linears) * dtype.itemsize
    # As in a pass through the model, weights come from memory.
    blocks = min(question.layers, 1 + BEYOND_CACHES // block)
    weights = [torch.randn(outputs, inputs, dtype=dtype) for inputs, outputs in question.linears * blocks]
    values = torch.randn(VALUES)
    small = torch.zeros(8)

    def small_operations() -> None:
        for _ in range(SMALL):
            small.add(1.0)

    return CpuRates(
        threads=threads,
        generating=_matrix_rate(weights, ROWS_GENERATING, clock),
        learning=_matrix_rate(weights[: len(question.linears)], ROWS_LEARNING, clock),
        reading=_matrix_rate(weights, 1, clock) / 2 * dtype.itemsize,
        values=VALUES / _fastest(lambda: torch.nn.functional.silu(values), clock),
        small_ops=SMALL / _fastest(small_operations, clock),
    )


def best_of(found: list[CpuRates]) -> CpuRates:
    """Return the highest of each rate: other processes can only make one lower."""
    return CpuRates(**{each.name: max(getattr(rates, each.name) for rates in found) for each in fields(CpuRates)})


def _matrix_rate(weights: list[torch.Tensor], rows: int, clock: Clock) -> float:
    """Return FLOP/s of the products of all weights with so many rows."""
    inputs = {weight.shape[1]: torch.randn(rows, weight.shape[1], dtype=weight.dtype) for weight in weights}

    def products() -> None:
        for weight in weights:
            torch.nn.functional.linear(inputs[weight.shape[1]], weight)

    return 2.0 * rows * sum(weight.numel() for weight in weights) / _fastest(products, clock)


def _fastest(work: Callable[[], object], clock: Clock) -> float:
    """Return the seconds of the fastest repetition after a first one that allocates."""
    work()
    best, end = float("inf"), time.perf_counter() + SECONDS
    while True:
        before = clock()
        work()
        best = min(best, clock() - before)
        if time.perf_counter() >= end:
            return best


def main(argument: str) -> None:
    """Print the rates for every number of threads that the question names."""
    asked = json.loads(argument)
    linears = tuple(map(tuple, asked["linears"]))
    question = RateQuestion(asked["dtype"], asked["layers"], linears, tuple(asked["threads"]))
    with torch.no_grad():
        rounds = [[measure(question, threads) for threads in question.threads] for _ in range(ROUNDS)]
    for found in zip(*rounds, strict=True):
        print(json.dumps(asdict(best_of(list(found)))))


if __name__ == "__main__":
    main(sys.argv[1])
