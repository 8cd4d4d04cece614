"""The section `policy_gradient`: the algorithm and its schedule."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from grpo_gsm8k.config.fields import (
    MIN_TEMPERATURE,
    ItemLimit,
    KeepLast,
    MinP,
    OptionalStopTexts,
    RepetitionPenalty,
    TopK,
    TopP,
    require_one,
)
from grpo_gsm8k.config.method_config import MethodConfig
from grpo_gsm8k.config.objective_config import RegressionSuiteConfig, TagCountConfig
from grpo_gsm8k.grading.user_rewards import OnError, RewardLimits

# Sampling settings that change the engine's distribution but not the learner's, with the value that changes nothing.
# The temperature is not one of them: the learner applies it too.
NEUTRAL_SAMPLING = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


class PolicyGradientConfig(MethodConfig):
    """The algorithm and the schedule of a policy-gradient run."""

    model_id: str | None
    episodes_per_update: int = Field(ge=1)
    updates: int | None = Field(ge=1)
    epochs: float | None = Field(default=None, gt=0)
    epochs_per_batch: int = Field(ge=1)
    minibatches: int = Field(ge=1)
    target_kl: float | None = Field(gt=0)
    overlong_buffer: float = Field(gt=0, le=1)
    max_new_tokens: int = Field(ge=1)
    temperature: float = Field(ge=MIN_TEMPERATURE)
    top_p: TopP
    top_k: TopK = 0
    min_p: MinP = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    stop: OptionalStopTexts = None
    max_staleness: int = Field(ge=0)
    late: Literal["wait", "drop", "partial"] = "wait"
    rewards_file: Path | list[Path] | None = None
    rewards_on_error: OnError = "stop"
    rewards_timeout_s: float = Field(default=30.0, gt=0)
    rewards_memory_mb: int = Field(default=2048, ge=64)
    rewards_network: bool = False
    tag_count: TagCountConfig = TagCountConfig()
    eval_every: int = Field(ge=1)
    eval_limit: ItemLimit | None
    regression_suite: RegressionSuiteConfig
    save_every: int = Field(ge=1)
    keep_last: KeepLast
    keep_rollouts: KeepLast = "all"
    record: bool
    resume_from: str | None

    @property
    def versions_at_once(self) -> int:
        """Weight versions that the engine holds at once: those with running requests, and the one being loaded."""
        return self.max_staleness + 2

    @property
    def prompts_per_update(self) -> int:
        """Number of prompts per policy update."""
        return self.episodes_per_update // self.group_size

    @property
    def completions_per_update(self) -> int:
        """Number of completions generated per policy update, with those that are only a baseline."""
        greedy = self.prompts_per_update if self.advantage_name == "greedy_baseline" else 0
        return self.episodes_per_update + greedy

    def updates_for(self, prompts: int) -> int:
        """Return the number of updates of a run with this many training prompts."""
        if self.epochs is None:
            assert self.updates is not None  # validated
            return self.updates
        # Fraction of the decimal text: 0.1 epochs of 320 prompts are 32 prompts, not 32.000000000000002.
        return math.ceil(Fraction(repr(self.epochs)) * prompts / self.prompts_per_update)

    @model_validator(mode="after")
    def _check_batch_shape(self) -> Self:
        if self.episodes_per_update % self.group_size:
            raise ValueError(
                f"episodes_per_update={self.episodes_per_update} is not a multiple of group_size={self.group_size}: "
                "set policy_gradient.episodes_per_update to a multiple of policy_gradient.group_size"
            )
        if self.minibatches > self.prompts_per_update:
            raise ValueError(
                f"minibatches={self.minibatches} exceeds the {self.prompts_per_update} prompts per update: "
                "lower policy_gradient.minibatches"
            )
        return self

    @property
    def rewards_files(self) -> list[Path]:
        """The files of `rewards_file`."""
        given = self.rewards_file
        return [] if given is None else given if isinstance(given, list) else [given]

    def reward_limits(self, seed: int) -> RewardLimits:
        """Limits of the functions in `rewards_file`; `seed` is that of the run."""
        limits = (self.rewards_timeout_s, self.rewards_memory_mb, self.rewards_on_error)
        return RewardLimits(*limits, seed, self.rewards_network)

    @model_validator(mode="after")
    def _check_rewards(self) -> Self:
        fields = type(self).model_fields
        changed = [
            name
            for name in ("rewards_on_error", "rewards_timeout_s", "rewards_memory_mb", "rewards_network")
            if getattr(self, name) != fields[name].default
        ]
        if changed and not self.rewards_files:
            raise ValueError(
                f"{changed[0]} has no effect without policy_gradient.rewards_file: set it, or drop the key"
            )
        if self.tag_count != TagCountConfig() and "tag_count" not in self.rewards:
            raise ValueError("tag_count has no effect without a weight: set +policy_gradient.rewards.tag_count=0.5")
        if self.overlong == "penalty" and "soft_overlong" in self.rewards:
            raise ValueError(
                "overlong=penalty and rewards.soft_overlong are the same penalty: set policy_gradient.overlong=keep "
                "or drop rewards.soft_overlong"
            )
        return self

    @model_validator(mode="after")
    def _check_temperature_of_server(self) -> Self:
        if self.teacher.base_url is not None and self.temperature != 1.0:
            raise ValueError(
                f"temperature={self.temperature:g} cannot be applied to the log-probabilities of a server: set "
                "policy_gradient.temperature=1, or policy_gradient.teacher.path instead of base_url"
            )
        return self

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if self.updates is not None and self.critic.pretrain_updates >= self.updates:
            raise ValueError(
                f"critic.pretrain_updates={self.critic.pretrain_updates} leaves the policy none of the {self.updates} "
                "updates: lower policy_gradient.critic.pretrain_updates or raise policy_gradient.updates"
            )
        epochs = 3 if self.epochs is None else self.epochs
        example = f"policy_gradient.updates=null policy_gradient.epochs={epochs:g}"
        require_one("updates", self.updates, "epochs", self.epochs, example)
        if self.epochs is not None and self.active_sampling:
            raise ValueError(
                f"epochs={self.epochs:g} does not fix the number of updates with active_sampling="
                f"{self.active_sampling}, which draws further prompts: set policy_gradient.updates=N "
                "policy_gradient.epochs=null"
            )
        if self.epochs is not None and self.late != "wait":
            raise ValueError(
                f"epochs={self.epochs:g} does not fix the number of updates with late={self.late}, which drops "
                "prompts: set policy_gradient.updates=N policy_gradient.epochs=null"
            )
        if self.record and self.keep_last == "all":
            raise ValueError("record=true would keep the inputs of every update: set policy_gradient.keep_last=N")
        return self

    @model_validator(mode="after")
    def _check_late(self) -> Self:
        if self.late != "wait" and self.max_staleness == 0:
            raise ValueError(
                f"late={self.late} has no meaning with max_staleness=0, where nothing is generated ahead of an update: "
                "set policy_gradient.late=wait, or policy_gradient.max_staleness=1 or more"
            )
        return self

    @model_validator(mode="after")
    def _check_sampling(self) -> Self:
        corrected = self.off_policy.proximal == "recomputed" and self.off_policy.correction != "none"
        for key, neutral in NEUTRAL_SAMPLING.items():
            value = getattr(self, key)
            if value != neutral and not corrected:
                raise ValueError(
                    f"{key}={value} makes the engine sample from another distribution than the learner computes, so "
                    f"importance ratios are wrong: set policy_gradient.{key}={neutral:g}, or "
                    "policy_gradient.off_policy.proximal=recomputed policy_gradient.off_policy.correction=truncate"
                )
        return self
