"""The constants of single policy losses, and which keys a loss reads."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from grpo_gsm8k.config.fields import Section

LossType = Literal[
    "no_baseline",
    "reinforce_with_baseline",
    "dpo",
    "grpo_clip",
    "ppo_clip",
    "cispo",
    "sapo",
    "dppo_tv",
    "dppo_kl",
    "gmpo",
    "vespo",
    "m2po",
    "clip_cov",
    "kl_cov",
]
WITH_RATIO_LEVEL = ("grpo_clip", "ppo_clip")  # the others have the ratio of their paper
WITH_CLIPRANGE = (*WITH_RATIO_LEVEL, "cispo", "dppo_tv", "dppo_kl", "gmpo", "clip_cov")
WITH_DUAL_CLIP = (*WITH_RATIO_LEVEL, "dppo_tv", "dppo_kl", "clip_cov")
SELECTS_TOKENS = ("m2po", "clip_cov", "kl_cov")  # among all of an optimizer step, with a forward pass more
FORWARD_BEFORE_STEP = (*SELECTS_TOKENS, "dpo")  # of the policy, over all of the step
OF_BEHAVIOUR = ("vespo", "m2po")  # their weight is over the policy that sampled, not over a recomputed one
# Losses of earlier versions, whose saved configurations may hold a clip range without effect.
IGNORES_CLIPRANGE = ("no_baseline", "reinforce_with_baseline")
PER_COMPLETION = ("gmpo", "vespo")  # one advantage for all tokens of a completion


class DpoConfig(Section):
    """The strength of the reference in a loss over pairs, and the loss of a pair."""

    beta: float = Field(default=0.1, gt=0)
    loss: Literal["sigmoid", "ipo"] = "sigmoid"


class SapoConfig(Section):
    """The temperatures of SAPO's gate."""

    tau_pos: float = Field(default=1.0, gt=0)
    tau_neg: float = Field(default=1.05, gt=0)


class VespoConfig(Section):
    """The exponents of VESPO's weight W^k exp(lambda (1 - W))."""

    k_pos: float = Field(default=2.0, ge=0)
    lambda_pos: float = Field(default=3.0, ge=0)
    k_neg: float = Field(default=3.0, ge=0)
    lambda_neg: float = Field(default=2.0, ge=0)


class M2poConfig(Section):
    """The bound of M2PO's mean squared log ratio."""

    threshold: float = Field(default=0.04, gt=0)


class ClipCovConfig(Section):
    """Which tokens Clip-Cov takes out of the loss: a fraction of all, with a covariance in a range."""

    fraction: float = Field(default=2e-4, gt=0, le=1)
    low: float = Field(default=1.0, ge=0)
    high: float = Field(default=5.0, gt=0)

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low={self.low:g} is not below high={self.high:g}: lower policy_gradient.clip_cov.low")
        return self


class KlCovConfig(Section):
    """Which tokens KL-Cov penalizes, the fraction with the largest covariance, and how much."""

    fraction: float = Field(default=2e-4, gt=0, le=1)
    coef: float = Field(default=1.0, gt=0)
