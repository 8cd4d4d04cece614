"""The constants of single policy losses, and which keys a loss reads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from grpo_gsm8k.config.fields import Section

LossType = Literal[
    "no_baseline",
    "reinforce_with_baseline",
    "grpo_clip",
    "ppo_clip",
    "cispo",
    "sapo",
    "dppo_tv",
    "dppo_kl",
    "gmpo",
    "vespo",
]
WITH_RATIO_LEVEL = ("grpo_clip", "ppo_clip")  # the others have the ratio of their paper
WITH_CLIPRANGE = (*WITH_RATIO_LEVEL, "cispo", "dppo_tv", "dppo_kl", "gmpo")
WITH_DUAL_CLIP = (*WITH_RATIO_LEVEL, "dppo_tv", "dppo_kl")
# Losses of earlier versions, whose saved configurations may hold a clip range without effect.
IGNORES_CLIPRANGE = ("no_baseline", "reinforce_with_baseline")
PER_COMPLETION = ("gmpo", "vespo")  # one advantage for all tokens of a completion


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
