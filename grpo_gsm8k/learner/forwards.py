"""Forward passes without gradients over the samples of a batch, divided among the ranks of the learner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.algorithms.logprobs import token_logprobs
from grpo_gsm8k.learner.batching import collate, or_shortest, pack
from grpo_gsm8k.learner.oom import retry_on_oom

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.batching import MicroBatch, Sample
    from grpo_gsm8k.learner.model import Policy
    from grpo_gsm8k.learner.oom import TokenBudget
    from grpo_gsm8k.learner.ranks import Ranks


def forward_columns(
    samples: Sequence[Sample],
    names: Sequence[str],
    forward: Callable[[MicroBatch], dict[str, torch.Tensor]],
    device: torch.device,
    beat: Callable[[], None],
    budget: TokenBudget,
    ranks: Ranks,
) -> dict[str, list[np.ndarray]]:
    """Return what `forward` computes of every sample: by name, float32 [predicted tokens] for each.

    `forward` returns float32 [N] on the device for the N predicted tokens of a micro-batch, at least for `names`. Each
    rank computes a part, and gets the others'. `beat` is called after every micro-batch.
    """
    ends = np.cumsum([s.predicted_tokens for s in samples], dtype=np.int64)

    def attempt(token_budget: int) -> list[np.ndarray]:
        """Compute this rank's part of the columns of all samples together, and leave the rest 0."""
        micro_batches = pack(samples, token_budget, ranks.part)
        computed = []
        for indices in micro_batches:
            chosen = [samples[i] for i in or_shortest(indices, samples)]
            computed.append(forward(collate(chosen, [0.0] * len(chosen), device)))
            beat()
        # Read at the end: until then nothing waits for the GPU.
        found = [np.zeros(sum(s.predicted_tokens for s in samples), dtype=np.float32) for _ in names]
        for indices, columns in zip(micro_batches, computed, strict=True):
            if not indices:
                continue
            at = np.concatenate([np.arange(ends[i] - samples[i].predicted_tokens, ends[i]) for i in indices])
            for column, name in zip(found, names, strict=True):
                column[at] = columns[name].cpu().numpy()
        return found

    flat = ranks.sum_arrays(retry_on_oom(budget, (), samples, attempt, ranks))
    return {name: np.split(column, ends[:-1])[: len(samples)] for name, column in zip(names, flat, strict=True)}


def policy_logprobs(policy: Policy, micro: MicroBatch, config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute log-probabilities and last hidden states of the predicted tokens, without dropout."""
    tokens = micro.tokens
    with policy.inference():
        hidden_NH = policy.hidden_states(tokens)[tokens.source_N]
        logprobs_N, *_ = token_logprobs(
            hidden_NH, policy.head, tokens.targets_N, config.policy_gradient.temperature, config.learner.logprob_chunk
        )
    return logprobs_N, hidden_NH


def unmasked(sample: Sample, values_N: np.ndarray) -> np.ndarray:
    """Values of the predicted tokens at their places among all R completion tokens; zero elsewhere."""
    values_R = np.zeros(len(sample.completion_ids), dtype=values_N.dtype)
    values_R[sample.mask] = values_N
    return values_R
