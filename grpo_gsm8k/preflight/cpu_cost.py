"""Seconds of generation and of learning on a CPU, from the measured rates and the model's shape. Pure functions.

Arithmetic is counted and divided by the measured rate of the model's own products. What is left are values that pass
through operations that multiply no matrices (norms, activations, softmax, optimizer), divided by the measured rate of
one such operation, and a number of small operations for Python's and torch's work per step, per sequence and per layer,
which is most of the time of a tiny model. Their counts below were found by timing the engine and the learner alone on
models of 0.4 and 135 million parameters with one and two threads; the rates are those of the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpo_gsm8k.preflight.cpu_rates import CpuRates
    from grpo_gsm8k.preflight.parameters import ModelShape

# The engine, in small operations.
STEP_OPS = 1100.0  # scheduling, input tensors and outputs of one step
LAYER_OPS = 60.0  # of one layer in one step
SEQUENCE_OPS = 20.0  # sampling with its own seed, log-probability and bookkeeping of one sequence in one step
ANSWER_OPS = 150.0  # admission and result of one completion
ENGINE_VALUES = 4.0  # passes over a token's hidden and intermediate values in one layer
SAMPLED_VALUES = 14.0  # passes over the logits of a sequence: softmax, noise, maximum, rank, log-softmax
SHARED_BLOCK = 32  # tokens of a block of the cache on a CPU; answers share the whole blocks of their prompt
# The learner.
BLOCK_OPS = 600.0  # of one layer for one micro-batch, forward and backward
BLOCK_VALUES = 24.0  # passes over a token's hidden and intermediate values in one layer, forward and backward
ADAPTER_VALUES = 6.0  # passes over the outputs of the adapted layers, forward and backward
HEAD_VALUES = 10.0  # passes over a token's logits, forward and backward
FORWARD_SHARE = 1 / 3  # of the passes over values, without a backward pass
OPTIMIZER_VALUES = 10.0  # passes over the trained parameters: clipping, moments, the step itself
TENSOR_OPS = 25.0  # of the optimizer for one tensor


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """Completions to generate: `answer` and `longest` are their mean and greatest length in tokens."""

    answers: float
    prompts: float  # each computed once
    at_once: int
    prompt: float
    answer: float
    longest: float


@dataclass(frozen=True, slots=True)
class UpdateLoad:
    """Passes over the tokens of an update, and what they train."""

    tokens: float
    predicted: float
    context: float  # mean number of keys of a query
    microbatches: float
    steps: float  # of the optimizer
    trained: float  # parameters
    tensors: float
    training: float  # forward and backward passes over all tokens
    forward: float  # passes without gradients
    frozen: bool  # the weights of the linear layers get no gradient
    recomputed: bool  # gradient checkpointing
    adapted: float = 0.0  # outputs of the layers of a block that have an adapter


def generating_s(shape: ModelShape, work: EngineLoad, rates: CpuRates, width: int) -> float:
    """Return the seconds of one engine for `work`; its weights have `width` bytes each."""
    if work.answers == 0:
        return 0.0
    tokens = work.answers * work.answer
    # Places are filled as they become free; at the end the last ones run on alone.
    steps = tokens / min(work.at_once, work.answers) + work.longest - work.answer
    layers = steps * shape.layers * LAYER_OPS
    operations = (steps * STEP_OPS + layers + tokens * SEQUENCE_OPS + work.answers * ANSWER_OPS) / rates.small_ops
    shared = SHARED_BLOCK * ((work.prompt - 1) // SHARED_BLOCK)
    computed = work.prompts * shared + work.answers * (work.prompt - shared)  # tokens of prompts
    values = tokens * shape.vocab * SAMPLED_VALUES
    values += (tokens + computed) * shape.layers * (shape.hidden + shape.intermediate) * ENGINE_VALUES
    # Of the products of one step: their arithmetic or, with few rows, reading the weights.
    arithmetic = 2 * (shape.linear + shape.head) * tokens / steps / rates.generating
    products = steps * max(arithmetic, width * shape.parameters / rates.reading)
    context = work.prompt + work.answer / 2
    attention = tokens * 4 * shape.layers * shape.query * context / rates.generating
    prompts = computed * (2 * shape.linear + 2 * shape.layers * shape.query * work.prompt) / rates.learning
    return operations + values / rates.values + products + attention + prompts


def learning_s(shape: ModelShape, work: UpdateLoad, rates: CpuRates) -> float:
    """Return the seconds of one update of the learner."""
    attention = 4 * shape.layers * shape.query * work.context * work.tokens
    # 2 operations per weight and token forward; backward twice as many, or as many if frozen. Logits: forward twice.
    linear, head = (4.0, 6.0) if work.frozen else (6.0, 8.0)
    blocks = (linear + 2 * work.recomputed) * shape.linear * work.tokens + 3 * attention
    trained = blocks + head * shape.head * work.predicted
    forward = 2 * shape.linear * work.tokens + 2 * shape.head * work.predicted + attention
    flops = work.training * trained + work.forward * forward
    width = BLOCK_VALUES * (shape.hidden + shape.intermediate) + ADAPTER_VALUES * work.adapted
    through_blocks = shape.layers * width * work.tokens
    through_head = HEAD_VALUES * shape.vocab * work.predicted
    passes = work.training + FORWARD_SHARE * work.forward
    values = passes * (through_blocks + through_head) + work.steps * OPTIMIZER_VALUES * work.trained
    operations = passes * work.microbatches * shape.layers * BLOCK_OPS + work.steps * work.tensors * TENSOR_OPS
    return flops / rates.learning + values / rates.values + operations / rates.small_ops
