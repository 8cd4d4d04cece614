"""The objective of one micro-batch: the configuration selects its terms, `algorithms` defines them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from grpo_gsm8k.algorithms.corrections import correction_weights, kept_tokens
from grpo_gsm8k.algorithms.kl import kl_estimate
from grpo_gsm8k.algorithms.logprobs import token_logprobs
from grpo_gsm8k.algorithms.loss_inputs import ClipRange, LossInputs, TokenLoss
from grpo_gsm8k.algorithms.losses import LOSSES, value_loss
from grpo_gsm8k.algorithms.ratios import importance_ratio

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config, PolicyGradientConfig
    from grpo_gsm8k.learner.batching import MicroBatch
    from grpo_gsm8k.learner.critic import Critic
    from grpo_gsm8k.learner.model import Policy


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a policy update; `reference` is None if the KL is off or the reference is the adapter's base.

    `teacher` is a frozen model to distill from, None for every other advantage.
    """

    policy: Policy
    reference: Policy | None
    critic: Critic | None
    teacher: Policy | None = None

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Parameters that receive gradients: the policy's, then the critic's own."""
        critic = [] if self.critic is None else self.critic.named_parameters()
        return [p for _, p in [*self.policy.named_parameters(), *critic]]

    def gather(self, name: str) -> None:
        """Take part while the first rank reads the divided weights of the `policy` or `critic`."""
        trained: Policy | Critic | None = self.critic if name == "critic" else self.policy
        assert trained is not None
        for _ in trained.whole_tensors():
            pass


@dataclass(frozen=True, slots=True)
class Objective:
    """`loss` is this micro-batch's share of the step's loss: shares add up. The rest is detached, for metrics."""

    loss: torch.Tensor
    log_ratio_N: torch.Tensor  # log of current over behavior probability
    per_token: dict[str, torch.Tensor]  # by metric name, [N] each
    policy_loss: torch.Tensor  # the policy loss's part of `loss`


def objective(models: Models, micro: MicroBatch, config: Config, kl_coef: float, value_only: bool = False) -> Objective:
    """Forward pass and loss: policy loss + KL to the reference - entropy bonus + value loss, as far as enabled.

    `value_only`: the value loss alone, without a gradient for the policy's parameters.
    """
    pg, tokens = config.policy_gradient, micro.tokens
    with models.policy.autocast(), torch.set_grad_enabled(not value_only):
        hidden_NH = models.policy.hidden_states(tokens)[tokens.source_N]
        logprobs_N, entropy_N, _ = token_logprobs(
            hidden_NH, models.policy.head, tokens.targets_N, pg.temperature, config.learner.logprob_chunk
        )
    log_ratio_N = logprobs_N - micro.proximal_logprobs_N
    correction_N = correction(pg, micro)
    ratio_N = importance_ratio(log_ratio_N, tokens.sequence_N, pg.ratio, tokens.sequences)
    policy_loss = surrogate(pg, logprobs_N, ratio_N, micro)
    corrected_N = correction_N * policy_loss.loss_N
    loss_N = corrected_N - pg.entropy_coef * entropy_N
    drift_N, above_N = log_ratio_N.detach(), ratio_N.detach() > 1
    per_token = {
        "train/clip_frac": policy_loss.clipped_N,
        "train/clip_frac_low": policy_loss.clipped_N & ~above_N,
        "train/clip_frac_high": policy_loss.clipped_N & above_N,
        "train/entropy": entropy_N.detach(),
        "train/approx_kl": drift_N.exp() - 1 - drift_N,
    }
    if pg.off_policy.corrects:
        per_token["train/correction_mean"] = correction_N
        per_token["train/correction_masked_frac"] = correction_N == 0
    if pg.kl.coef and not value_only:
        kl_N = kl_estimate(logprobs_N, micro.reference_logprobs_N, pg.kl.estimator)
        per_token["train/kl_reference"] = kl_N.detach()
        if pg.kl.place == "loss":
            loss_N = loss_N + kl_coef * kl_N
    if models.critic is not None:
        values_N = models.critic.values(hidden_NH, tokens)
        critic_loss = value_loss(values_N, micro.values_N, micro.returns_N, pg.critic.cliprange)
        per_token["train/value_loss"] = critic_loss.loss_N.detach()
        per_token["train/value_clip_frac"] = critic_loss.clipped_N
        value_N = pg.critic.value_coef * critic_loss.loss_N
        loss_N = value_N if value_only else loss_N + value_N
    loss = (loss_N * micro.loss_weights_N).sum()
    policy_part = loss.new_zeros(()) if value_only else (corrected_N.detach() * micro.loss_weights_N).sum()
    return Objective(loss, (logprobs_N - micro.behaviour_logprobs_N).detach(), per_token, policy_part)


def correction(pg: PolicyGradientConfig, micro: MicroBatch) -> torch.Tensor:
    """Weight of each token for the distance of proximal and behavior policy; 0 for rejected ones."""
    off, tokens = pg.off_policy, micro.tokens
    log_ratio_N = micro.proximal_logprobs_N - micro.behaviour_logprobs_N
    weights_N = correction_weights(
        log_ratio_N, tokens.sequence_N, off.correction, off.level, off.low, off.high, tokens.sequences
    )
    if not off.reject.ranges:
        return weights_N
    return weights_N * kept_tokens(log_ratio_N, tokens.sequence_N, off.reject.ranges, tokens.sequences)


def surrogate(
    pg: PolicyGradientConfig, logprobs_N: torch.Tensor, ratio_N: torch.Tensor, micro: MicroBatch
) -> TokenLoss:
    """Policy loss per token, as `loss_type` and the clip ranges define it."""
    high = pg.cliprange if pg.cliprange_high is None else pg.cliprange_high
    clip = ClipRange(pg.cliprange, high, pg.dual_clip)
    inputs = LossInputs(
        logprobs_N=logprobs_N,
        old_logprobs_N=micro.proximal_logprobs_N,
        ratio_N=ratio_N,
        advantages_N=micro.advantages_N,
        clip=clip,
        sequence_N=micro.tokens.sequence_N,
        sequences=micro.tokens.sequences,
        selected_N=micro.selected_N,
    )
    return LOSSES[pg.loss_type](inputs, **pg.loss_constants)
