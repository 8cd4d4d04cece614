"""One policy update: epochs x minibatches x micro-batches over the rollouts of one batch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from grpo_gsm8k.algorithms.reductions import token_weights
from grpo_gsm8k.learner.batching import MicroBatch, Sample, collate, minibatch_indices, or_shortest, pack
from grpo_gsm8k.learner.dealing import WHOLE, Part
from grpo_gsm8k.learner.experience import is_active
from grpo_gsm8k.learner.logprob_gap import is_measured, measure_gap
from grpo_gsm8k.learner.objective import Models, objective
from grpo_gsm8k.learner.oom import TokenBudget, retry_on_oom
from grpo_gsm8k.learner.preference_weights import with_pair_weights
from grpo_gsm8k.learner.ranks import ALONE
from grpo_gsm8k.learner.token_selection import with_selection
from grpo_gsm8k.learner.update_stats import TokenStats, Totals, UpdateStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.optimizer import Optimizer
    from grpo_gsm8k.learner.ranks import Ranks
    from grpo_gsm8k.learner.schedules import Rates


@dataclass(frozen=True, slots=True)
class Optimizers:
    """One optimizer for the policy and one for the critic's own parameters."""

    policy: Optimizer
    critic: Optimizer | None

    def named(self, name: str) -> Optimizer:
        """Return the optimizer called `name`, `policy` or `critic`."""
        found = {"policy": self.policy, "critic": self.critic}[name]
        assert found is not None
        return found

    def step(self, rates: Rates, totals: Totals, stats: UpdateStats, finite_inputs: bool = True) -> None:
        """Apply the gradients of both, and record the step in `stats`; see `Optimizer.step`."""
        policy = self.policy.step(rates.lr, finite_inputs)
        critic = None if self.critic is None else self.critic.step(rates.critic_lr, finite_inputs)
        stats.add_step(totals, policy, critic)


def update_policy(
    models: Models,
    optimizers: Optimizers,
    groups: Sequence[Sequence[Sample]],
    config: Config,
    step: int,
    rates: Rates,
    beat: Callable[[], None],
    budget: TokenBudget | None = None,
    ranks: Ranks = ALONE,
) -> UpdateStats:
    """Train on the samples of one batch of rollouts, grouped by prompt.

    `beat` is called after every micro-batch. `budget`, by default the configured one, is the tokens that a micro-batch
    may hold; it shrinks when memory runs out. All `ranks` get the same arguments and return the same statistics; each
    computes a part of every optimizer step's gradient, and all of them do the step.
    """
    pg = config.policy_gradient
    stats = UpdateStats()
    budget = budget or TokenBudget(config.learner.token_budget)
    for epoch in range(pg.epochs_per_batch):
        before = stats.total("train/approx_kl")
        for number, indices in enumerate(minibatch_indices(len(groups), pg.minibatches, (config.seed, step, epoch))):
            step_groups = [groups[i] for i in indices]
            chosen, pairs = with_pair_weights(models.policy, step_groups, config, beat, budget, ranks)
            stats.add_tokens(pairs)
            samples = [sample for group in chosen for sample in group]
            seed = (config.seed, step, epoch, number)
            samples = with_selection(models.policy, samples, config, seed, beat, budget, ranks)
            if not stats.losses and not is_measured(samples, config):
                every = [sample for group in groups for sample in group]
                stats.add_tokens(measure_gap(models.policy, every, config, budget, ranks))
            # Before the policy moves, the critic learns to predict its returns (VC-PPO, arXiv:2503.01491).
            value_only = step < pg.critic.pretrain_updates
            passes = Passes(models, samples, config, rates.kl_coef, beat, not stats.losses, ranks.part, value_only)
            own = retry_on_oom(budget, models.parameters, samples, passes.run, ranks)
            ranks.sum_gradients(models.parameters)
            totals = _merged(ranks.gather("totals", asdict(own)))
            optimizers.step(rates, totals, stats, all(is_finite(sample) for sample in samples))
            beat()
        stats.epochs += 1
        if pg.target_kl is not None and _mean_since(stats, before) > pg.target_kl:
            break
    ranks.check_equal(models.parameters)
    return stats


@dataclass(frozen=True, slots=True)
class Passes:
    """The forward and backward passes of one optimizer step, or one rank's part of them.

    `first`: the weights are still those that may have sampled the tokens.
    """

    models: Models
    samples: Sequence[Sample]
    config: Config
    kl_coef: float
    beat: Callable[[], None]
    first: bool = True
    part: Part = WHOLE
    value_only: bool = False

    def run(self, token_budget: int) -> Totals:
        """Accumulate the gradients; returns the loss and the totals of the tokens."""
        stats = TokenStats()
        for micro in microbatches(self.samples, self.config, self.models.policy.device, token_budget, self.part):
            output = objective(self.models, micro, self.config, self.kl_coef, self.value_only)
            output.loss.backward()
            if micro.counted:
                stats.add(output, micro.on_policy_M if self.first else None)
            self.beat()
        # Nothing above waits for the GPU, so the next micro-batch is packed while it computes the last one.
        return stats.read()


def microbatches(
    samples: Sequence[Sample],
    config: Config,
    device: torch.device,
    token_budget: int | None = None,
    part: Part = WHOLE,
) -> Iterator[MicroBatch]:
    """Yield one rank's micro-batches of an optimizer step, of `token_budget` tokens (None: as configured).

    The denominators count every sample of the step that takes part in the loss. Samples that cannot contribute a
    gradient are left out of the forward and backward passes. A rank in lockstep that lacks a micro-batch gets a sample
    that counts nothing.
    """
    pg = config.policy_gradient
    in_loss = [sample for sample in samples if sample.in_loss]
    weights = token_weights([s.predicted_tokens for s in in_loss], pg.reduction, pg.max_new_tokens)
    active = [(s, weight) for s, weight in zip(in_loss, weights, strict=True) if is_active(s, pg)]
    passed = [sample for sample, _ in active]
    for indices in pack(passed, token_budget or config.learner.token_budget, part):
        chosen = or_shortest(indices, passed)
        micro = collate([passed[i] for i in chosen], [active[i][1] if indices else 0.0 for i in chosen], device)
        yield micro if indices else replace(micro, counted=False)


def _merged(parts: Sequence[dict[str, Any]]) -> Totals:
    """Return the totals of all ranks, added up in their order."""
    totals = Totals()
    for values in parts:
        totals.merge(Totals(**values))
    return totals


def is_finite(sample: Sample) -> bool:
    """Whether the engine's log-probabilities are numbers: clipping can turn an infinite one into a finite gradient."""
    return bool(np.isfinite(sample.behaviour_logprobs[sample.mask]).all())


def _mean_since(stats: UpdateStats, before: tuple[float, int]) -> float:
    """Mean KL(proximal || current) over the tokens of one epoch."""
    total, count = stats.total("train/approx_kl")
    return (total - before[0]) / max(1, count - before[1])
