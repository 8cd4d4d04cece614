"""Samples -> padding-free micro-batches. The only place where labels are shifted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion with what the loss needs of it. `fresh` marks tokens sampled by the version being trained."""

    prompt_ids: np.ndarray  # int32 [P]
    completion_ids: np.ndarray  # int32 [R]
    behaviour_logprobs: np.ndarray  # float32 [R]
    fresh: np.ndarray  # bool [R]
    advantage: float

    @property
    def length(self) -> int:
        """Tokens of prompt and completion."""
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Sequences laid one after another: T tokens in all, of which N are completion tokens.

    `source_N[i]` is the position in T whose hidden state predicts the completion token `targets_N[i]`.
    `weights_N` sums, over all micro-batches of an optimizer step, to the number that the loss is an average over.
    """

    input_ids_T: torch.Tensor
    position_ids_T: torch.Tensor
    lengths: tuple[int, ...]
    source_N: torch.Tensor
    targets_N: torch.Tensor
    behaviour_logprobs_N: torch.Tensor
    fresh_N: torch.Tensor
    advantages_N: torch.Tensor
    weights_N: torch.Tensor


def sequence_mean_weight(sample: Sample, sequences: int) -> float:
    """Weight of each token of a sample: mean over its tokens, then mean over the step's `sequences` (GRPO)."""
    return 1.0 / (max(1, len(sample.completion_ids)) * sequences)


def pack(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Indices of sequences for each micro-batch: first-fit decreasing, deterministic.

    A sequence longer than the budget gets a micro-batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    bins: list[list[int]] = []
    room: list[int] = []
    for i in order:
        slot = next((b for b, free in enumerate(room) if free >= lengths[i]), None)
        if slot is None:
            bins.append([i])
            room.append(token_budget - lengths[i])
        else:
            bins[slot].append(i)
            room[slot] -= lengths[i]
    return bins


def collate(samples: Sequence[Sample], token_weights: Sequence[float], device: torch.device) -> MicroBatch:
    """Lay samples one after another; `token_weights[i]` goes to every completion token of sample i."""
    starts = np.concatenate([[0], np.cumsum([s.length for s in samples])[:-1]])
    source = [
        # The token at position p is predicted at p - 1: this is the one label shift.
        start + len(s.prompt_ids) - 1 + np.arange(len(s.completion_ids))
        for start, s in zip(starts, samples, strict=True)
    ]
    counts = [len(s.completion_ids) for s in samples]

    def tensor(parts: Sequence[np.ndarray], dtype: torch.dtype) -> torch.Tensor:
        return torch.as_tensor(np.concatenate(parts), dtype=dtype).to(device, non_blocking=True)

    return MicroBatch(
        input_ids_T=tensor([part for s in samples for part in (s.prompt_ids, s.completion_ids)], torch.int64),
        position_ids_T=tensor([np.arange(s.length) for s in samples], torch.int64),
        lengths=tuple(s.length for s in samples),
        source_N=tensor(source, torch.int64),
        targets_N=tensor([s.completion_ids for s in samples], torch.int64),
        behaviour_logprobs_N=tensor([s.behaviour_logprobs for s in samples], torch.float32),
        fresh_N=tensor([s.fresh for s in samples], torch.bool),
        advantages_N=tensor([np.repeat([s.advantage for s in samples], counts)], torch.float32),
        weights_N=tensor([np.repeat(token_weights, counts)], torch.float32),
    )


def minibatch_indices(groups: int, minibatches: int, seed: tuple[int, ...]) -> list[np.ndarray]:
    """Split `groups` group indices into `minibatches` nearly equal parts, shuffled by `seed`."""
    order = np.random.default_rng(seed).permutation(groups)
    return np.array_split(order, minibatches)
