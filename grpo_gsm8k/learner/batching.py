"""Samples to padding-free micro-batches; the only place where labels are shifted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from grpo_gsm8k.learner.dealing import WHOLE, Part, deal
from grpo_gsm8k.learner.device import to_device
from grpo_gsm8k.learner.layout import Layout, Segment, shared_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """A prompt of P tokens and its continuation of R tokens.

    `mask` marks the completion tokens that are predicted and trained on. The others (a tool's output in the middle of a
    completion) are only context: no log-probability is computed for them and no denominator counts them.
    """

    prompt_ids: np.ndarray  # int32 [P]
    completion_ids: np.ndarray  # int32 [R]
    mask: np.ndarray  # bool [R]

    @property
    def predicted_tokens(self) -> int:
        """Number of completion tokens that a loss is defined on."""
        return int(self.mask.sum())


@dataclass(frozen=True, slots=True)
class Sample(TokenSequence):
    """One rollout with everything a loss needs; arrays are [R].

    `on_policy` marks tokens sampled by the version being trained. `in_loss` is False for a completion that is left out
    of the loss and its denominators. The arrays from `advantages` on are filled in by `experience.prepare`, `selected`
    by `token_selection.with_selection`: `proximal_logprobs` equal `behaviour_logprobs` unless they are recomputed, and
    what the method does not use is zero.
    """

    behaviour_logprobs: np.ndarray  # float32
    on_policy: np.ndarray  # bool
    in_loss: bool
    advantages: np.ndarray  # float32
    proximal_logprobs: np.ndarray  # float32
    reference_logprobs: np.ndarray  # float32
    teacher_logprobs: np.ndarray  # float32
    values: np.ndarray  # float32
    returns: np.ndarray  # float32
    selected: np.ndarray  # bool


def token_sequence(prompt_ids: np.ndarray, completion_ids: np.ndarray) -> TokenSequence:
    """Return a sequence whose completion tokens are all predicted."""
    return TokenSequence(prompt_ids, completion_ids, np.ones(len(completion_ids), dtype=np.bool_))


def rollout_sample(
    prompt_ids: np.ndarray,
    completion_ids: np.ndarray,
    behaviour_logprobs: np.ndarray,
    on_policy: np.ndarray,
    advantage: float = 0.0,
    in_loss: bool = True,
    mask: np.ndarray | None = None,
) -> Sample:
    """Return a sample as the engine delivers it, with one advantage for all of its tokens; `mask` None: all True."""
    zeros = np.zeros(len(completion_ids), dtype=np.float32)
    behaviour = np.asarray(behaviour_logprobs, dtype=np.float32)
    return Sample(
        prompt_ids=prompt_ids,
        completion_ids=completion_ids,
        mask=np.ones(len(completion_ids), dtype=np.bool_) if mask is None else mask,
        behaviour_logprobs=behaviour,
        on_policy=on_policy,
        in_loss=in_loss,
        advantages=np.full(len(completion_ids), advantage, dtype=np.float32),
        proximal_logprobs=behaviour,
        reference_logprobs=zeros,
        teacher_logprobs=zeros,
        values=zeros,
        returns=zeros,
        selected=np.zeros(len(completion_ids), dtype=np.bool_),
    )


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """T input tokens: each prompt once, followed by its completions; N completion tokens are predicted.

    `source_N[i]` is the position in T whose hidden state predicts the completion token `targets_N[i]`, and
    `sequence_N[i]` is the index of the sequence it belongs to, of `sequences`.
    """

    input_ids_T: torch.Tensor
    position_ids_T: torch.Tensor
    layout: Layout
    source_N: torch.Tensor
    targets_N: torch.Tensor
    sequence_N: torch.Tensor
    sequences: int


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Packed samples with their columns for the N predicted tokens; `on_policy_M` are the indices of M of them.

    `loss_weights_N` is the weight of each token in the loss of the optimizer step (see `reductions.token_weights`).
    """

    tokens: PackedTokens
    on_policy_M: torch.Tensor
    behaviour_logprobs_N: torch.Tensor
    proximal_logprobs_N: torch.Tensor
    reference_logprobs_N: torch.Tensor
    advantages_N: torch.Tensor
    values_N: torch.Tensor
    returns_N: torch.Tensor
    selected_N: torch.Tensor
    loss_weights_N: torch.Tensor
    counted: bool = True  # False: a pass for the exchanges with other ranks alone, whose weights are 0


def pack(sequences: Sequence[TokenSequence], token_budget: int, part: Part = WHOLE) -> list[list[int]]:
    """Assign the sequences of one rank to micro-batches: first-fit decreasing over prompts with their completions.

    Returns the indices of each micro-batch; deterministic. Completions of one prompt stay together, on one rank, so
    that the prompt is computed once. What exceeds the budget is split, and a sequence that exceeds it alone gets a
    micro-batch of its own. A rank may get none. In lockstep, ranks with fewer micro-batches get empty ones at the end.
    """
    if part.lockstep:
        parts = [pack(sequences, token_budget, Part(rank, part.ranks)) for rank in range(part.ranks)]
        return parts[part.rank] + [[]] * (max(map(len, parts)) - len(parts[part.rank]))
    units = _units(sequences, token_budget)
    units = [units[i] for i in deal([unit.tokens for unit in units], part)]
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


def or_shortest(indices: list[int], sequences: Sequence[TokenSequence]) -> list[int]:
    """Return the indices of a micro-batch; of an empty one, that of the shortest sequence, which costs least."""
    return indices or [
        min(range(len(sequences)), key=lambda i: len(sequences[i].prompt_ids) + len(sequences[i].completion_ids))
    ]


class _Unit(NamedTuple):
    tokens: int
    indices: list[int]


def _units(sequences: Sequence[TokenSequence], token_budget: int) -> list[_Unit]:
    """Group the sequences of each prompt into units that fit the budget."""
    by_prompt: dict[bytes, list[int]] = {}
    for i, sequence in enumerate(sequences):
        by_prompt.setdefault(sequence.prompt_ids.tobytes(), []).append(i)
    units: list[_Unit] = []
    for indices in by_prompt.values():
        prompt = len(sequences[indices[0]].prompt_ids)
        unit = _Unit(prompt, [])
        for i in indices:
            length = len(sequences[i].completion_ids)
            if unit.indices and unit.tokens + length > token_budget:
                units.append(unit)
                unit = _Unit(prompt, [])
            unit = _Unit(unit.tokens + length, [*unit.indices, i])
        units.append(unit)
    return units


def pack_tokens(sequences: Sequence[TokenSequence], device: torch.device) -> PackedTokens:
    """Concatenate sequences, those with the same prompt behind a single copy of it.

    The last token of a completion predicts nothing, so it is not an input.
    """
    inputs: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    sources: dict[int, np.ndarray] = {}
    segments: list[Segment] = []
    offset = 0
    for indices in _runs_of_one_prompt(sequences):
        prompt_ids = sequences[indices[0]].prompt_ids
        prompt = len(prompt_ids)
        segments += shared_prompt(offset, prompt, [max(0, len(sequences[i].completion_ids) - 1) for i in indices])
        inputs.append(prompt_ids)
        positions.append(np.arange(prompt))
        last = offset + prompt - 1
        offset += prompt
        for i in indices:
            fed = sequences[i].completion_ids[:-1]
            inputs.append(fed)
            positions.append(prompt + np.arange(len(fed)))
            # A token is predicted one position before its own, the first one at the prompt's end: the one label shift.
            source = np.concatenate([[last], offset + np.arange(len(fed))])[: len(sequences[i].completion_ids)]
            sources[i] = source[sequences[i].mask]
            offset += len(fed)
    counts = [s.predicted_tokens for s in sequences]
    return PackedTokens(
        input_ids_T=_tensor(inputs, torch.int64, device),
        position_ids_T=_tensor(positions, torch.int64, device),
        layout=Layout(segments),
        source_N=_tensor([sources[i] for i in range(len(sequences))], torch.int64, device),
        targets_N=_tensor([s.completion_ids[s.mask] for s in sequences], torch.int64, device),
        sequence_N=_tensor([np.repeat(np.arange(len(sequences)), counts)], torch.int64, device),
        sequences=len(sequences),
    )


def collate(samples: Sequence[Sample], token_weights: Sequence[float], device: torch.device) -> MicroBatch:
    """Pack samples with their columns; `token_weights[i]` goes to every predicted token of sample i."""

    def column(name: str) -> torch.Tensor:
        return _tensor([getattr(s, name)[s.mask] for s in samples], torch.float32, device)

    counts = [s.predicted_tokens for s in samples]
    on_policy_N = np.concatenate([s.on_policy[s.mask] for s in samples])
    return MicroBatch(
        tokens=pack_tokens(samples, device),
        on_policy_M=_tensor([np.flatnonzero(on_policy_N)], torch.int64, device),
        behaviour_logprobs_N=column("behaviour_logprobs"),
        proximal_logprobs_N=column("proximal_logprobs"),
        reference_logprobs_N=column("reference_logprobs"),
        advantages_N=column("advantages"),
        values_N=column("values"),
        returns_N=column("returns"),
        selected_N=_tensor([s.selected[s.mask] for s in samples], torch.bool, device),
        loss_weights_N=_tensor([np.repeat(token_weights, counts)], torch.float32, device),
    )


def _tensor(parts: Sequence[np.ndarray], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return to_device(torch.as_tensor(np.concatenate(parts), dtype=dtype), device)


def _runs_of_one_prompt(sequences: Sequence[TokenSequence]) -> list[list[int]]:
    """Group the indices of neighboring sequences whose prompts are equal."""
    runs: list[list[int]] = []
    for i, sequence in enumerate(sequences):
        if runs and np.array_equal(sequences[runs[-1][0]].prompt_ids, sequence.prompt_ids):
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def minibatch_indices(groups: int, minibatches: int, seed: tuple[int, ...]) -> list[np.ndarray]:
    """Split `groups` group indices into `minibatches` nearly equal parts, shuffled by `seed`."""
    order = np.random.default_rng(seed).permutation(groups)
    return np.array_split(order, minibatches)
