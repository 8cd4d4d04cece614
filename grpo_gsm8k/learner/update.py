"""One policy update: epochs x minibatches x micro-batches over the rollouts of one batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from grpo_gsm8k.algorithms.logprobs import token_logprobs
from grpo_gsm8k.algorithms.losses import LossOutput, policy_gradient_loss
from grpo_gsm8k.learner.batching import MicroBatch, Sample, collate, minibatch_indices, pack, sequence_mean_weight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.model import Policy
    from grpo_gsm8k.learner.optimizer import Optimizer, StepStats


@dataclass
class UpdateStats:
    """Sums over the tokens of one policy update that took part in a forward pass."""

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    skipped_steps: int = 0
    tokens: int = 0
    clipped: float = 0.0
    entropy: float = 0.0
    ratio: float = 0.0
    ratio_max: float = 0.0
    kl_behaviour: float = 0.0
    gap_tokens: int = 0
    gap: float = 0.0
    gap_max: float = 0.0

    def add(self, output: LossOutput, entropy_N: torch.Tensor) -> None:
        """Count one micro-batch."""
        log_ratio = output.log_ratio_N
        ratio = log_ratio.exp()
        self.tokens += len(log_ratio)
        self.clipped += float(output.clipped_N.sum())
        self.entropy += float(entropy_N.sum())
        self.ratio += float(ratio.sum())
        self.ratio_max = max(self.ratio_max, float(ratio.max()))
        # k3 estimate of KL(behaviour || current), arXiv:2402.03300 eq. 4; never negative.
        self.kl_behaviour += float((ratio - 1 - log_ratio).sum())

    def add_gap(self, output: LossOutput, fresh_N: torch.Tensor) -> None:
        """Engine against learner, on tokens that both computed with the very same weights."""
        gap = output.log_ratio_N[fresh_N].abs()
        if len(gap):
            self.gap_tokens += len(gap)
            self.gap += float(gap.sum())
            self.gap_max = max(self.gap_max, float(gap.max()))

    def add_step(self, loss: float, stats: StepStats) -> None:
        """Count one optimizer step."""
        self.losses.append(loss)
        self.grad_norms.append(stats.grad_norm)
        self.skipped_steps += stats.skipped

    def metrics(self) -> dict[str, float]:
        """Averages under their metric names; what has no data is left out."""
        values: dict[str, float] = {
            "train/loss": float(np.mean(self.losses)),
            "train/grad_norm": float(np.mean(self.grad_norms)),
            "train/skipped_steps": self.skipped_steps,
            "train/optimizer_steps": len(self.losses) - self.skipped_steps,
        }
        if self.tokens:
            values["train/clip_frac"] = self.clipped / self.tokens
            values["train/entropy"] = self.entropy / self.tokens
            values["train/ratio_mean"] = self.ratio / self.tokens
            values["train/ratio_max"] = self.ratio_max
            values["train/kl_behaviour"] = self.kl_behaviour / self.tokens
        if self.gap_tokens:
            values["sync/logprob_gap_mean"] = self.gap / self.gap_tokens
            values["sync/logprob_gap_max"] = self.gap_max
        return values


def update_policy(
    policy: Policy,
    optimizer: Optimizer,
    groups: Sequence[Sequence[Sample]],
    config: Config,
    step: int,
    lr: float,
    beat: Callable[[], None],
) -> UpdateStats:
    """Train on the samples of one batch of rollouts, grouped by prompt. `beat` is called after every micro-batch."""
    pg = config.policy_gradient
    stats = UpdateStats()
    for epoch in range(pg.epochs_per_batch):
        for indices in minibatch_indices(len(groups), pg.minibatches, (config.seed, step, epoch)):
            samples = [sample for i in indices for sample in groups[i]]
            first = not stats.losses  # the weights are still the ones that the engine may have had
            loss = 0.0
            for micro in microbatches(samples, config.learner.token_budget, policy.device):
                output, entropy_N = forward(policy, micro, config)
                output.loss.backward()
                loss += float(output.loss.detach())
                stats.add(output, entropy_N)
                if first:
                    stats.add_gap(output, micro.fresh_N)
                beat()
            stats.add_step(loss, optimizer.step(lr))
    return stats


def microbatches(samples: Sequence[Sample], token_budget: int, device: torch.device) -> Iterator[MicroBatch]:
    """The micro-batches of one optimizer step.

    The denominators count every sample of the step. Those with an advantage of zero contribute neither loss nor
    gradient, so they are left out of the forward and backward passes.
    """
    active = [sample for sample in samples if sample.advantage != 0.0]
    for indices in pack([sample.length for sample in active], token_budget):
        chosen = [active[i] for i in indices]
        yield collate(chosen, [sequence_mean_weight(s, len(samples)) for s in chosen], device)


def forward(policy: Policy, micro: MicroBatch, config: Config) -> tuple[LossOutput, torch.Tensor]:
    """Loss share and entropies of one micro-batch."""
    pg = config.policy_gradient
    with policy.autocast():
        hidden_NH = policy.hidden_states(micro)[micro.source_N]
        logprobs_N, entropy_N = token_logprobs(
            hidden_NH, policy.head, micro.targets_N, pg.temperature, config.learner.logprob_chunk
        )
    output = policy_gradient_loss(
        pg.loss_type, logprobs_N, micro.behaviour_logprobs_N, micro.advantages_N, micro.weights_N, pg.cliprange
    )
    return output, entropy_N
