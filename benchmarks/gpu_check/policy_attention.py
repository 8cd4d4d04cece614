"""Second part of step 2: the learner's own attention, through its policy and whatever implementation it chooses."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.gpu_check.outcome import require

if TYPE_CHECKING:
    from benchmarks.gpu_check.outcome import Record
    from benchmarks.gpu_check.setup import Setup

LAYOUTS = 20
NEW_SHAPE_FACTOR = 3.0  # a micro-batch of new lengths may take this many times as long as one of repeated lengths
ERROR = {"bfloat16": 0.05, "float32": 1e-4}  # of log-probabilities in nats, and of the gradient relative to its norm


def check_policy(setup: Setup, record: Record) -> None:
    """Fail if packed log-probabilities or gradients are not those of each sequence alone in float64."""
    from grpo_gsm8k.learner.model import load_policy

    dtype = "bfloat16" if setup.cuda else "float32"
    config = setup.config(f"learner.dtype={dtype}")
    policy = load_policy(setup.random_model("tiny"), config.learner)
    sequences = packed_sequences([30, 12, 25, 7])
    logprobs, gradient = packed(policy, sequences)
    expected, expected_gradient = alone(setup, sequences)
    error = float((logprobs - expected).abs().max())
    record("policy: largest error of a log-probability", error)
    off = float((gradient - expected_gradient).norm() / expected_gradient.norm())
    record("policy: error of the gradient", off)
    require(error < ERROR[dtype], f"a log-probability of the learner is off by {error:.3g} nat")
    require(off < ERROR[dtype], f"the learner's gradient is off by {off:.3g} of its norm")
    rng = np.random.default_rng(0)
    different = [packed_sequences(rng.integers(20, 120, size=8).tolist()) for _ in range(LAYOUTS)]
    same = [packed_sequences([70] * 8)] * LAYOUTS
    for layout in (*same[:2], *different[:2]):
        packed(policy, layout)  # warm up
    new_s, same_s = timed(policy, different[2:]), timed(policy, same[2:])
    record("policy: ms per micro-batch of new lengths", 1000 * new_s)
    record("policy: ms per micro-batch of repeated lengths", 1000 * same_s)
    require(
        not setup.cuda or new_s < NEW_SHAPE_FACTOR * same_s,  # a CPU plans nothing, and may be busy with other programs
        f"a micro-batch of new lengths takes {new_s / same_s:.1f} times as long as one of repeated lengths",
    )


def packed_sequences(lengths: list[int]) -> list[Any]:
    """Return completions of these lengths behind one prompt of 40 tokens."""
    from grpo_gsm8k.learner.batching import token_sequence

    rng = np.random.default_rng(sum(lengths))
    prompt = rng.integers(3, 99, size=40).astype(np.int32)
    return [token_sequence(prompt, rng.integers(3, 99, size=n).astype(np.int32)) for n in lengths]


def packed(policy: Any, sequences: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probabilities, and the gradient of their sum with respect to the embedding, in float64 on the CPU."""
    from grpo_gsm8k.algorithms.logprobs import token_logprobs
    from grpo_gsm8k.learner.batching import pack_tokens

    tokens = pack_tokens(sequences, policy.device)
    policy.model.zero_grad()
    with policy.autocast():
        hidden = policy.hidden_states(tokens)[tokens.source_N]
        logprobs, *_ = token_logprobs(hidden, policy.head, tokens.targets_N, 1.0, 256)
    logprobs.sum().backward()
    gradient = policy.model.get_input_embeddings().weight.grad
    return logprobs.detach().double().cpu(), gradient.double().cpu()


def alone(setup: Setup, sequences: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same with Hugging Face's model in float64, one sequence at a time."""
    from transformers import AutoModelForCausalLM

    folder = setup.folder / "tiny"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    parts = []
    for sequence in sequences:
        ids = torch.as_tensor(np.concatenate([sequence.prompt_ids, sequence.completion_ids]), dtype=torch.int64)
        logprobs = torch.log_softmax(model(ids[None]).logits[0], -1)
        positions = torch.arange(len(sequence.prompt_ids) - 1, len(ids) - 1)
        parts.append(logprobs[positions, ids[positions + 1]])
    joined = torch.cat(parts)
    joined.sum().backward()
    return joined.detach(), model.get_input_embeddings().weight.grad


def timed(policy: Any, layouts: list[list[Any]]) -> float:
    """Return the mean seconds of a forward and a backward pass; both end with a copy to the CPU, which waits."""
    started = time.perf_counter()
    for sequences in layouts:
        packed(policy, sequences)
    return (time.perf_counter() - started) / len(layouts)
