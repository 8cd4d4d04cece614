"""One policy update: epochs x minibatches x micro-batches over the rollouts of one batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.algorithms.reductions import token_weights
from grpo_gsm8k.learner.batching import MicroBatch, Sample, collate, minibatch_indices, pack
from grpo_gsm8k.learner.experience import is_active
from grpo_gsm8k.learner.objective import Models, objective
from grpo_gsm8k.learner.stats import UpdateStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.optimizer import Optimizer


@dataclass(frozen=True, slots=True)
class Optimizers:
    """One for the policy, one for the critic's own parameters."""

    policy: Optimizer
    critic: Optimizer | None

    def step(self, lr: float, critic_lr: float, loss: float, stats: UpdateStats) -> None:
        """Apply the gradients of both."""
        policy = self.policy.step(lr)
        critic = None if self.critic is None else self.critic.step(critic_lr)
        stats.add_step(loss, policy, critic)


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rates and the KL coefficient of one policy update."""

    lr: float
    critic_lr: float
    kl_coef: float

    def metrics(self) -> dict[str, float]:
        """Under their metric names."""
        return {"train/lr": self.lr, **({"train/kl_coef": self.kl_coef} if self.kl_coef else {})}


def update_policy(
    models: Models,
    optimizers: Optimizers,
    groups: Sequence[Sequence[Sample]],
    config: Config,
    step: int,
    rates: Rates,
    beat: Callable[[], None],
) -> UpdateStats:
    """Train on the samples of one batch of rollouts, grouped by prompt. `beat` is called after every micro-batch."""
    pg = config.policy_gradient
    stats = UpdateStats()
    for epoch in range(pg.epochs_per_batch):
        before = stats.total("train/approx_kl")
        for indices in minibatch_indices(len(groups), pg.minibatches, (config.seed, step, epoch)):
            samples = [sample for i in indices for sample in groups[i]]
            first = not stats.losses  # the weights are still the ones that the engine may have had
            loss = 0.0
            for micro in microbatches(samples, config, models.policy.device):
                output = objective(models, micro, config, rates.kl_coef)
                output.loss.backward()
                loss += float(output.loss.detach())
                stats.add(output, micro.fresh_N if first else None)
                beat()
            optimizers.step(rates.lr, rates.critic_lr, loss, stats)
        stats.epochs += 1
        if pg.target_kl is not None and _mean_since(stats, before) > pg.target_kl:
            break
    return stats


def microbatches(samples: Sequence[Sample], config: Config, device: torch.device) -> Iterator[MicroBatch]:
    """The micro-batches of one optimizer step.

    The denominators count every sample of the step that takes part in the loss. Those that cannot contribute a gradient
    are left out of the forward and backward passes.
    """
    pg = config.policy_gradient
    counted = [sample for sample in samples if sample.counted]
    weights = token_weights([len(s.completion_ids) for s in counted], pg.reduction, pg.max_new_tokens)
    active = [(s, weight) for s, weight in zip(counted, weights, strict=True) if is_active(s, pg)]
    for indices in pack([sample for sample, _ in active], config.learner.token_budget):
        yield collate([active[i][0] for i in indices], [active[i][1] for i in indices], device)


def _mean_since(stats: UpdateStats, before: tuple[float, int]) -> float:
    """Mean KL(proximal || current) of the tokens of one epoch."""
    total, count = stats.total("train/approx_kl")
    return (total - before[0]) / max(1, count - before[1])
