"""Parity probe at the start of a run: learner, Hugging Face and engine give the same tokens the same log-probabilities.

One packed micro-batch, two prompts with two completions each and longer than any window of the model, goes through the
learner's packed forward pass, through the model's plain Hugging Face forward pass one sequence at a time, and (where
the engine can score prompts) through the engine. A difference means that the learner trains another model than the
engine runs, so the run stops.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.errors import ModelMismatchError
from grpo_gsm8k.learner.batching import token_sequence
from grpo_gsm8k.learner.oom import is_out_of_memory
from grpo_gsm8k.learner.sequence_scores import packed_logprobs, plain_logprobs
from grpo_gsm8k.transport.protocol import GenerateGroup, SamplingSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.batching import TokenSequence
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.model import Policy
    from grpo_gsm8k.learner.task import Item
    from grpo_gsm8k.transport.protocol import GroupResult

BEYOND = 32  # tokens beyond the window, or all tokens of a sequence of a model without one
COMPARED = 64  # last tokens of a sequence that are compared: Hugging Face's logits are [tokens, V]
EXACT_NATS = 1e-3  # largest difference in float32
# Mean difference in bf16: with correct weights the engine and Hugging Face differ by 0.024 on average (SmolLM2-135M),
# and a window, a soft cap or a logit scale that is ignored changes the mean by 0.2 and more.
ROUGH_NATS = 0.1


@dataclass(frozen=True, slots=True)
class ProbeBatch:
    """Sequences of the probe, and the learner's log-probabilities of the last COMPARED tokens of each."""

    architecture: str
    sequences: list[TokenSequence]
    logprobs: list[np.ndarray]


def probe_sequences(items: Sequence[Item], length: int) -> list[TokenSequence]:
    """Return two prompts with two completions each, up to `length` tokens, made of the data's own prompt tokens."""
    tokens = np.concatenate([item.prompt_ids for item in items[:COMPARED]])
    text = np.resize(tokens, 4 * length + 4)
    made = []
    for prompt in (0, 1):
        start = text[prompt : prompt + max(1, length // (3 + prompt))]
        for completion in (0, 1):
            offset = (2 * prompt + completion) * length + prompt + 1
            made.append(token_sequence(start, text[offset : offset + length - len(start) - completion]))
    return made


def probe_length(policy: Policy, config: Config) -> int:
    """Longest sequence of the probe: beyond the model's window, within the engine's context."""
    window = getattr(policy.architecture_config, "sliding_window", None) or 0
    return max(4, min(window + BEYOND, config.actor.max_model_len - 1))


def probe_learner(policy: Policy, items: Sequence[Item], config: Config) -> ProbeBatch:
    """Compare the packed forward pass with Hugging Face's; returns the batch for the engine.

    Sequences are halved until they fit into memory. Raises ModelMismatchError beyond the tolerance.
    """
    started = time.monotonic()
    length = probe_length(policy, config)
    while True:
        try:
            batch, plain = _both_passes(policy, probe_sequences(items, length), config.learner.logprob_chunk)
            break
        except RuntimeError as error:
            if not is_out_of_memory(error) or length < BEYOND or policy.shards is not None:
                raise
            length //= 2
    check_gap(batch, plain, "Hugging Face's own forward pass", exact=policy.computes_in_float32)
    print(f"parity probe of the learner, {length} tokens: {time.monotonic() - started:.2f} s", flush=True)
    return batch


class EngineProbe:
    """Scores the sequences of the probe with the engine, and compares them when the answers arrive."""

    def __init__(self, policy: Policy, batch: ProbeBatch, client: Client, config: Config) -> None:
        """Nothing is sent yet."""
        self._policy = policy
        self._batch = batch
        self._client = client
        self._chunk = config.learner.logprob_chunk
        self._exact = config.actor.dtype == "float32" and config.learner.dtype == "float32"
        self._answers: dict[int, np.ndarray] = {}  # by the number of the sequence
        self._asked = 0
        self._submitted = 0.0

    @property
    def pending(self) -> bool:
        """Whether answers are still to come."""
        return self._asked > 0

    def submit(self, version: int) -> None:
        """Queue the sequences, pinned to `version`, which the policy has now."""
        self._submitted = time.monotonic()
        logprobs = _compared(self._policy, self._batch.sequences, self._chunk)
        self._batch = replace(self._batch, logprobs=logprobs)
        for index, sequence in enumerate(self._batch.sequences):
            request = _request(f"{self._client.incarnation}/probe/{index}", sequence, version)
            self._client.request(request, partial(self._take, index))
        self._asked = len(self._batch.sequences)

    def poll(self, wait: bool) -> None:
        """Take the answers that have arrived, or wait for all; compares when they are complete.

        Raises ModelMismatchError beyond the tolerance. Gives up waiting if the run has to stop.
        """
        if not self.pending:
            return
        if wait:
            self._client.wait_until(lambda: len(self._answers) == self._asked)
        else:
            self._client.poll()
        if len(self._answers) == self._asked:
            check_gap(self._batch, [self._answers[i] for i in range(self._asked)], "the engine", self._exact)
            self._asked = 0
            print(f"parity probe of the engine: {time.monotonic() - self._submitted:.2f} s", flush=True)

    def _take(self, index: int, result: GroupResult) -> None:
        assert result.prompt is not None
        self._answers[index] = result.prompt.logprobs[-len(self._batch.logprobs[index]) :]


def check_gap(batch: ProbeBatch, other: Sequence[np.ndarray], name: str, exact: bool) -> None:
    """Raise ModelMismatchError if log-probabilities differ by more than EXACT_NATS, or ROUGH_NATS on average."""
    gaps = np.concatenate([np.abs(a - b) for a, b in zip(batch.logprobs, other, strict=True)])
    gap, limit = (float(gaps.max()), EXACT_NATS) if exact else (float(gaps.mean()), ROUGH_NATS)
    if not gap <= limit:  # also if it is not a number
        raise ModelMismatchError(
            f"model.path: the learner's log-probabilities of {batch.architecture} differ from those of {name} by "
            f"{gap:.4f} nats ({'largest' if exact else 'mean'} difference; tolerance {limit:g}): this architecture or "
            "its settings are not supported (actor.probe=false skips the check)"
        )


def _request(request_id: str, sequence: TokenSequence, version: int) -> GenerateGroup:
    sampling = SamplingSpec(temperature=0.0, top_p=1.0, max_new_tokens=1, seed=0, stop_token_ids=())
    ids = np.concatenate([sequence.prompt_ids, sequence.completion_ids]).astype(np.int32)
    return GenerateGroup(request_id, ids, 1, sampling, version, pinned=True, score_prompt=True)


def _both_passes(policy: Policy, sequences: list[TokenSequence], chunk: int) -> tuple[ProbeBatch, list[np.ndarray]]:
    packed = _compared(policy, sequences, chunk)
    plain = plain_logprobs(policy, sequences, COMPARED)
    return ProbeBatch(policy.architecture_config.model_type, sequences, packed), plain


def _compared(policy: Policy, sequences: list[TokenSequence], chunk: int) -> list[np.ndarray]:
    return [logprobs[-COMPARED:] for logprobs in packed_logprobs(policy, sequences, chunk)]
