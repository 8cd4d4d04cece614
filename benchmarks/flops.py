"""Arithmetic of an update, counted in floating-point operations. Pure functions.

A product of [m, k] and [k, n] has 2mkn operations (one multiplication, one addition). The forward pass multiplies every
linear layer once; the backward pass twice, once for the gradient of its input and once for that of its weight. A frozen
weight (LoRA) needs only the first. Recomputation (gradient checkpointing, logits of the head) is not counted: model
FLOPs, as in PaLM (arXiv:2204.02311, appendix B). Norms, rotary embeddings, softmax, the adapter's own products and the
optimizer are left out; they are below 1 % of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpo_gsm8k.learner.batching import TokenSequence
    from grpo_gsm8k.preflight.parameters import ModelShape

Groups = Sequence[Sequence["TokenSequence"]]  # completions of one prompt each


@dataclass(frozen=True, slots=True)
class Work:
    """Size of an update: input tokens, predicted tokens (which need logits), and pairs of a query and its keys."""

    tokens: int
    predicted: int
    pairs: int


def computed_once(groups: Groups) -> Work:
    """Return the work if each prompt is computed once for all completions of its group: what the learner has to do."""
    tokens = predicted = pairs = 0
    for group in groups:
        prompt = len(group[0].prompt_ids)
        tokens += prompt
        pairs += _causal(prompt)
        for sample in group:
            fed = max(0, len(sample.completion_ids) - 1)  # the last token predicts nothing
            tokens += fed
            predicted += len(sample.completion_ids)
            pairs += fed * prompt + _causal(fed)
    return Work(tokens, predicted, pairs)


def as_a_user_counts(groups: Groups) -> Work:
    """Return the work if each completion were computed with its own copy of the prompt."""
    lengths = [len(s.prompt_ids) + max(0, len(s.completion_ids) - 1) for group in groups for s in group]
    predicted = sum(len(s.completion_ids) for group in groups for s in group)
    return Work(sum(lengths), predicted, sum(map(_causal, lengths)))


def update_flops(shape: ModelShape, work: Work, frozen: bool) -> float:
    """Return the operations of forward and backward passes; `frozen`: the weights get no gradient (LoRA)."""
    matrices = matrix_flops(shape, work.tokens, work.predicted)
    return (2 if frozen else 3) * matrices + 3 * attention_flops(shape, work.pairs)


def matrix_flops(shape: ModelShape, tokens: int, predicted: int) -> float:
    """Return the operations of all linear layers for `tokens`, and of the head for `predicted` of them, forward."""
    return 2.0 * (shape.linear * tokens + shape.head * predicted)


def attention_flops(shape: ModelShape, pairs: int) -> float:
    """Return the operations of scores and weighted values, forward; the backward pass has twice as many."""
    return 4.0 * shape.layers * shape.query * pairs


def _causal(length: int) -> int:
    return length * (length + 1) // 2
