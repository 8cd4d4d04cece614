"""Samples -> padding-free micro-batches. The only place where labels are shifted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion of R tokens with what the loss needs of it; arrays are [R] unless said otherwise.

    `fresh` marks tokens sampled by the version being trained. The arrays from `advantages` on come from
    `experience.prepare`: `proximal_logprobs` are `behaviour_logprobs` where nothing else is asked for, and what a
    method has no use for is zero. `counted` is False for a completion left out of the loss and its denominators.
    """

    prompt_ids: np.ndarray  # int32 [P]
    completion_ids: np.ndarray  # int32
    behaviour_logprobs: np.ndarray  # float32
    fresh: np.ndarray  # bool
    counted: bool
    advantages: np.ndarray  # float32
    proximal_logprobs: np.ndarray  # float32
    reference_logprobs: np.ndarray  # float32
    values: np.ndarray  # float32
    returns: np.ndarray  # float32


def rollout_sample(
    prompt_ids: np.ndarray,
    completion_ids: np.ndarray,
    behaviour_logprobs: np.ndarray,
    fresh: np.ndarray,
    advantage: float = 0.0,
    counted: bool = True,
) -> Sample:
    """A sample as it comes from the engine, with the same advantage for all of its tokens."""
    zeros = np.zeros(len(completion_ids), dtype=np.float32)
    advantages = np.full(len(completion_ids), advantage, dtype=np.float32)
    behaviour = np.asarray(behaviour_logprobs, dtype=np.float32)
    return Sample(prompt_ids, completion_ids, behaviour, fresh, counted, advantages, behaviour, zeros, zeros, zeros)


class SharedPrompt(NamedTuple):
    """Lengths of a prompt and of the completions that follow it in a micro-batch, in input tokens."""

    prompt: int
    completions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """T input tokens: each prompt once, followed by its completions; N completion tokens are predicted.

    `source_N[i]` is the position in T whose hidden state predicts the completion token `targets_N[i]`, and `sequence_N`
    the number of its sample. `weights_N` says how much a token's loss counts (see `reductions.token_weights`).
    """

    input_ids_T: torch.Tensor
    position_ids_T: torch.Tensor
    layout: tuple[SharedPrompt, ...]
    source_N: torch.Tensor
    targets_N: torch.Tensor
    sequence_N: torch.Tensor
    fresh_N: torch.Tensor
    behaviour_logprobs_N: torch.Tensor
    proximal_logprobs_N: torch.Tensor
    reference_logprobs_N: torch.Tensor
    advantages_N: torch.Tensor
    values_N: torch.Tensor
    returns_N: torch.Tensor
    weights_N: torch.Tensor


def pack(samples: Sequence[Sample], token_budget: int) -> list[list[int]]:
    """Indices of the samples of each micro-batch: prompts with their completions, first-fit decreasing, deterministic.

    Completions of one prompt stay together, so that it is computed once; what exceeds the budget is split, and a sample
    that exceeds it alone gets a micro-batch of its own.
    """
    units = _units(samples, token_budget)
    units.sort(key=lambda unit: (-unit.tokens, unit.indices))
    bins: list[list[int]] = []
    room: list[int] = []
    for unit in units:
        slot = next((b for b, free in enumerate(room) if free >= unit.tokens), None)
        if slot is None:
            bins.append([])
            room.append(token_budget)
            slot = len(bins) - 1
        bins[slot] += unit.indices
        room[slot] -= unit.tokens
    return bins


class _Unit(NamedTuple):
    tokens: int
    indices: list[int]


def _units(samples: Sequence[Sample], token_budget: int) -> list[_Unit]:
    """Samples of one prompt, as many together as the budget holds."""
    by_prompt: dict[bytes, list[int]] = {}
    for i, sample in enumerate(samples):
        by_prompt.setdefault(sample.prompt_ids.tobytes(), []).append(i)
    units: list[_Unit] = []
    for indices in by_prompt.values():
        prompt = len(samples[indices[0]].prompt_ids)
        unit = _Unit(prompt, [])
        for i in indices:
            length = len(samples[i].completion_ids)
            if unit.indices and unit.tokens + length > token_budget:
                units.append(unit)
                unit = _Unit(prompt, [])
            unit = _Unit(unit.tokens + length, [*unit.indices, i])
        units.append(unit)
    return units


def collate(samples: Sequence[Sample], token_weights: Sequence[float], device: torch.device) -> MicroBatch:
    """Lay samples one after another, those with the same prompt behind a single copy of it.

    `token_weights[i]` goes to every completion token of sample i. The last token of a completion predicts nothing, so
    it is no input.
    """
    inputs: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    sources: dict[int, np.ndarray] = {}
    layout: list[SharedPrompt] = []
    offset = 0
    for indices in _runs_of_one_prompt(samples):
        prompt_ids = samples[indices[0]].prompt_ids
        prompt = len(prompt_ids)
        inputs.append(prompt_ids)
        positions.append(np.arange(prompt))
        last = offset + prompt - 1
        offset += prompt
        for i in indices:
            fed = samples[i].completion_ids[:-1]
            inputs.append(fed)
            positions.append(prompt + np.arange(len(fed)))
            # A token is predicted one position before its own, the first one at the prompt's end: the one label shift.
            sources[i] = np.concatenate([[last], offset + np.arange(len(fed))])[: len(samples[i].completion_ids)]
            offset += len(fed)
        layout.append(SharedPrompt(prompt, tuple(max(0, len(samples[i].completion_ids) - 1) for i in indices)))
    counts = [len(s.completion_ids) for s in samples]

    def tensor(parts: Sequence[np.ndarray], dtype: torch.dtype) -> torch.Tensor:
        return torch.as_tensor(np.concatenate(parts), dtype=dtype).to(device, non_blocking=True)

    return MicroBatch(
        input_ids_T=tensor(inputs, torch.int64),
        position_ids_T=tensor(positions, torch.int64),
        layout=tuple(layout),
        source_N=tensor([sources[i] for i in range(len(samples))], torch.int64),
        targets_N=tensor([s.completion_ids for s in samples], torch.int64),
        sequence_N=tensor([np.repeat(np.arange(len(samples)), counts)], torch.int64),
        fresh_N=tensor([s.fresh for s in samples], torch.bool),
        behaviour_logprobs_N=tensor([s.behaviour_logprobs for s in samples], torch.float32),
        proximal_logprobs_N=tensor([s.proximal_logprobs for s in samples], torch.float32),
        reference_logprobs_N=tensor([s.reference_logprobs for s in samples], torch.float32),
        advantages_N=tensor([s.advantages for s in samples], torch.float32),
        values_N=tensor([s.values for s in samples], torch.float32),
        returns_N=tensor([s.returns for s in samples], torch.float32),
        weights_N=tensor([np.repeat(token_weights, counts)], torch.float32),
    )


def _runs_of_one_prompt(samples: Sequence[Sample]) -> list[list[int]]:
    """Indices of neighbouring samples whose prompts are equal."""
    runs: list[list[int]] = []
    for i, sample in enumerate(samples):
        if runs and np.array_equal(samples[runs[-1][0]].prompt_ids, sample.prompt_ids):
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def minibatch_indices(groups: int, minibatches: int, seed: tuple[int, ...]) -> list[np.ndarray]:
    """Split `groups` group indices into `minibatches` nearly equal parts, shuffled by `seed`."""
    order = np.random.default_rng(seed).permutation(groups)
    return np.array_split(order, minibatches)
