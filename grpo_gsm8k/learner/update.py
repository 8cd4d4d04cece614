"""One policy update: epochs x minibatches x micro-batches over the rollouts of one batch."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from grpo_gsm8k.algorithms.reductions import token_weights
from grpo_gsm8k.learner.batching import MicroBatch, Sample, collate, minibatch_indices, pack
from grpo_gsm8k.learner.experience import is_active
from grpo_gsm8k.learner.logprob_gap import is_measured, measure_gap
from grpo_gsm8k.learner.objective import Models, objective
from grpo_gsm8k.learner.oom import TokenBudget, retry_on_oom
from grpo_gsm8k.learner.token_selection import with_selection
from grpo_gsm8k.learner.update_stats import UpdateStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.optimizer import Optimizer
    from grpo_gsm8k.learner.schedules import Rates


@dataclass(frozen=True, slots=True)
class Optimizers:
    """One optimizer for the policy and one for the critic's own parameters."""

    policy: Optimizer
    critic: Optimizer | None

    def step(self, rates: Rates, loss: float, stats: UpdateStats, finite_inputs: bool = True) -> None:
        """Apply the gradients of both, and record the step in `stats`; see `Optimizer.step`."""
        policy = self.policy.step(rates.lr, finite_inputs)
        critic = None if self.critic is None else self.critic.step(rates.critic_lr, finite_inputs)
        stats.add_step(loss, policy, critic)


def update_policy(
    models: Models,
    optimizers: Optimizers,
    groups: Sequence[Sequence[Sample]],
    config: Config,
    step: int,
    rates: Rates,
    beat: Callable[[], None],
    budget: TokenBudget | None = None,
) -> UpdateStats:
    """Train on the samples of one batch of rollouts, grouped by prompt.

    `beat` is called after every micro-batch. `budget`, by default the configured one, is the tokens that a micro-batch
    may hold; it shrinks when memory runs out.
    """
    pg = config.policy_gradient
    stats = UpdateStats()
    budget = budget or TokenBudget(config.learner.token_budget)
    for epoch in range(pg.epochs_per_batch):
        before = stats.total("train/approx_kl")
        for number, indices in enumerate(minibatch_indices(len(groups), pg.minibatches, (config.seed, step, epoch))):
            samples = [sample for i in indices for sample in groups[i]]
            samples = with_selection(models.policy, samples, config, (config.seed, step, epoch, number), beat, budget)
            if not stats.losses and not is_measured(samples, config):
                every = [sample for group in groups for sample in group]
                stats.add_gap(measure_gap(models.policy, every, config, budget))
            # Before the policy moves, the critic learns to predict its returns (VC-PPO, arXiv:2503.01491).
            value_only = step < pg.critic.pretrain_updates
            passes = Passes(models, samples, config, rates.kl_coef, beat, value_only)
            loss, stats = retry_on_oom(budget, passes.parameters, samples, partial(passes.run, stats))
            optimizers.step(rates, loss, stats, all(is_finite(sample) for sample in samples))
        stats.epochs += 1
        if pg.target_kl is not None and _mean_since(stats, before) > pg.target_kl:
            break
    return stats


@dataclass(frozen=True, slots=True)
class Passes:
    """The forward and backward passes of one optimizer step."""

    models: Models
    samples: Sequence[Sample]
    config: Config
    kl_coef: float
    beat: Callable[[], None]
    value_only: bool = False

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Parameters that receive gradients."""
        critic = [] if self.models.critic is None else self.models.critic.named_parameters()
        return [p for _, p in [*self.models.policy.named_parameters(), *critic]]

    def run(self, before: UpdateStats, token_budget: int) -> tuple[float, UpdateStats]:
        """Accumulate the gradients; returns the loss and a copy of `before` with this step's tokens added.

        `before` stays untouched, so that a step that runs out of memory can be repeated.
        """
        stats = copy.deepcopy(before)
        first = not stats.losses  # the weights are still those that may have sampled the tokens
        losses = []
        for micro in microbatches(self.samples, self.config, self.models.policy.device, token_budget):
            output = objective(self.models, micro, self.config, self.kl_coef, self.value_only)
            output.loss.backward()
            losses.append(output.loss.detach())
            stats.add(output, micro.on_policy_M if first else None)
            self.beat()
        # Nothing above waits for the GPU, so the next micro-batch is packed while it computes the last one.
        stats.read()
        return sum(torch.stack(losses).tolist()) if losses else 0.0, stats


def microbatches(
    samples: Sequence[Sample], config: Config, device: torch.device, token_budget: int | None = None
) -> Iterator[MicroBatch]:
    """Yield the micro-batches of one optimizer step, of `token_budget` tokens (None: as configured).

    The denominators count every sample of the step that takes part in the loss. Samples that cannot contribute a
    gradient are left out of the forward and backward passes.
    """
    pg = config.policy_gradient
    in_loss = [sample for sample in samples if sample.in_loss]
    weights = token_weights([s.predicted_tokens for s in in_loss], pg.reduction, pg.max_new_tokens)
    active = [(s, weight) for s, weight in zip(in_loss, weights, strict=True) if is_active(s, pg)]
    for indices in pack([sample for sample, _ in active], token_budget or config.learner.token_budget):
        yield collate([active[i][0] for i in indices], [active[i][1] for i in indices], device)


def is_finite(sample: Sample) -> bool:
    """Whether the engine's log-probabilities are numbers: clipping can turn an infinite one into a finite gradient."""
    return bool(np.isfinite(sample.behaviour_logprobs[sample.mask]).all())


def _mean_since(stats: UpdateStats, before: tuple[float, int]) -> float:
    """Mean KL(proximal || current) over the tokens of one epoch."""
    total, count = stats.total("train/approx_kl")
    return (total - before[0]) / max(1, count - before[1])
