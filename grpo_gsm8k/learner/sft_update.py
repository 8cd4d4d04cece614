"""One update of supervised fine-tuning: micro-batches over given responses, and one optimizer step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from grpo_gsm8k.algorithms.logprobs import token_logprobs
from grpo_gsm8k.learner.batching import or_shortest, pack, pack_tokens
from grpo_gsm8k.learner.oom import TokenBudget, retry_on_oom
from grpo_gsm8k.learner.ranks import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpo_gsm8k.config import LearnerConfig
    from grpo_gsm8k.learner.batching import TokenSequence
    from grpo_gsm8k.learner.dealing import Part
    from grpo_gsm8k.learner.model import Policy
    from grpo_gsm8k.learner.optimizer import Optimizer
    from grpo_gsm8k.learner.ranks import Ranks


@dataclass(frozen=True, slots=True)
class SftStats:
    """One optimizer step over `tokens` response tokens: sums over them in nats, and the gradient norm."""

    tokens: int
    loss_sum: float
    entropy_sum: float
    greedy: int
    input_tokens: int
    grad_norm: float
    skipped: bool

    def metrics(self, lr: float, seconds: float) -> dict[str, float]:
        """Return averages by metric name. Throughput counts prompt and response tokens; there is no padding."""
        loss = self.loss_sum / self.tokens
        return {
            "train/loss": loss,
            "train/perplexity": math.exp(min(loss, 700.0)),  # exp overflows a double above 709
            "train/entropy": self.entropy_sum / self.tokens,
            "train/token_accuracy": self.greedy / self.tokens,
            "train/response_tokens": float(self.tokens),
            "train/tokens_per_s": self.input_tokens / seconds,
            "train/grad_norm": self.grad_norm,
            "train/skipped_steps": float(self.skipped),
            "train/optimizer_steps": float(not self.skipped),
            "train/lr": lr,
        }


def fine_tune(
    policy: Policy,
    optimizer: Optimizer,
    sequences: Sequence[TokenSequence],
    config: LearnerConfig,
    lr: float,
    beat: Callable[[], None],
    budget: TokenBudget | None = None,
    ranks: Ranks = ALONE,
) -> SftStats:
    """Do one optimizer step on the mean negative log-likelihood of all response tokens of `sequences`.

    `beat`, `budget` and `ranks` are as in `update_policy`.
    """
    budget = budget or TokenBudget(config.token_budget)
    parameters = [p for _, p in policy.named_parameters()]
    passes = partial(_passes, policy, sequences, config.logprob_chunk, beat, ranks.part)
    own = retry_on_oom(budget, parameters, sequences, passes, ranks)
    ranks.sum_gradients(parameters)
    loss_sum, entropy_sum, greedy = (math.fsum(column) for column in zip(*ranks.gather("totals", own), strict=True))
    step = optimizer.step(lr)
    ranks.check_equal(parameters)
    count = sum(sequence.predicted_tokens for sequence in sequences)
    inputs = sum(len(sequence.prompt_ids) + len(sequence.completion_ids) for sequence in sequences)
    return SftStats(count, loss_sum, entropy_sum, int(greedy), inputs, step.grad_norm, step.skipped)


def _passes(
    policy: Policy,
    sequences: Sequence[TokenSequence],
    logprob_chunk: int,
    beat: Callable[[], None],
    part: Part,
    token_budget: int,
) -> list[float]:
    """Accumulate one rank's part of the gradients of one optimizer step; returns its loss, entropy and greedy tokens.

    All three are sums over tokens, the first two in nats.
    """
    count = sum(sequence.predicted_tokens for sequence in sequences)
    sums = [torch.zeros(3, dtype=torch.float64, device=policy.device)]
    for indices in pack(sequences, token_budget, part):
        tokens = pack_tokens([sequences[i] for i in or_shortest(indices, sequences)], policy.device)
        with policy.autocast():
            hidden_NH = policy.hidden_states(tokens)[tokens.source_N]
            scores = token_logprobs(hidden_NH, policy.head, tokens.targets_N, 1.0, logprob_chunk)
        (-scores.logprobs_N * (1 / count if indices else 0.0)).sum().backward()
        if not indices:  # of another rank, in lockstep
            continue
        found = (-scores.logprobs_N.detach().sum(), scores.entropy_N.detach().sum(), scores.greedy_N.sum())
        sums.append(torch.stack([value.double() for value in found]))
        beat()
    # Read once: nothing above waits for the GPU, so the next micro-batch is packed while it computes the last one.
    return [math.fsum(column) for column in zip(*torch.stack(sums).tolist(), strict=True)]
