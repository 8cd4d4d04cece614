"""The inner sections of `policy_gradient`: correction, KL penalty, critic, regression suite, tags."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from grpo_gsm8k.config.fields import Section


def _ratio_range(value: tuple[float, float]) -> tuple[float, float]:
    """Raise ValueError for a range without the ratio 1, that of two equal policies."""
    low, high = value
    if not 0 <= low <= 1 <= high:
        raise ValueError(f"[{low:g}, {high:g}]: give [low, high] with low from 0 to 1 and high of at least 1")
    return value


RatioRange = Annotated[tuple[float, float], AfterValidator(_ratio_range)]


class RejectConfig(Section):
    """Ranges of the ratio of proximal to behavior policy outside of which tokens, or completions, weigh 0."""

    token: RatioRange | None = None
    sequence: RatioRange | None = None
    geometric_mean: RatioRange | None = None
    outlier: RatioRange | None = None

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The ranges that are set, by key."""
        return {name: value for name, value in self if value is not None}


class OffPolicyConfig(Section):
    """The denominator of the importance ratio, and the correction for its distance from the behavior policy."""

    proximal: Literal["behaviour", "recomputed"]
    correction: Literal["none", "importance", "truncate", "mask", "masked_importance"]
    level: Literal["token", "sequence", "geometric_mean"]
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=1)
    reject: RejectConfig = RejectConfig()

    @property
    def corrects(self) -> bool:
        """Whether tokens have weights other than 1."""
        return self.correction != "none" or bool(self.reject.ranges)

    @model_validator(mode="after")
    def _check_correction(self) -> Self:
        if self.proximal == "recomputed":
            return self
        if self.correction != "none":
            raise ValueError(
                f"correction={self.correction} has no effect with proximal=behaviour, where its weights are all 1: "
                "set policy_gradient.off_policy.proximal=recomputed"
            )
        for name in self.reject.ranges:
            raise ValueError(
                f"reject.{name} has no effect with proximal=behaviour, where all ratios are 1: set "
                "policy_gradient.off_policy.proximal=recomputed"
            )
        return self


class KlConfig(Section):
    """KL penalty toward the reference: the start model, or with LoRA the base model without the adapter."""

    coef: float = Field(ge=0)
    estimator: Literal["k1", "k2", "k3"]
    place: Literal["loss", "reward"]
    target: float | None = Field(gt=0)
    horizon: int = Field(ge=1)

    @model_validator(mode="after")
    def _check_estimator(self) -> Self:
        if self.coef and self.estimator == "k1" and self.place == "loss":
            raise ValueError(
                "estimator=k1 with place=loss has an expected gradient of zero: set policy_gradient.kl.estimator=k2 or "
                "k3, or policy_gradient.kl.place=reward"
            )
        return self

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if self.target is not None and self.coef == 0:
            raise ValueError(
                f"target={self.target} has no effect with coef=0: set "
                "policy_gradient.kl.coef=0.05 or policy_gradient.kl.target=null"
            )
        return self


class CriticConfig(Section):
    """The value function of PPO. `shared`: a head on the policy's trunk; `separate`: a second model."""

    kind: Literal["none", "shared", "separate"]
    path: str | None
    lr: float = Field(ge=0)
    value_coef: float = Field(gt=0)
    cliprange: float | None = Field(gt=0)
    gamma: float = Field(gt=0, le=1)
    lam: float = Field(ge=0, le=1)
    lam_value: float | None = Field(default=None, ge=0, le=1)
    pretrain_updates: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_critic(self) -> Self:
        for key, default in (("lam_value", None), ("pretrain_updates", 0)):
            value = getattr(self, key)
            if self.kind == "none" and value != default:
                raise ValueError(f"{key}={value} has no effect without a critic: use policy_gradient=ppo")
        return self


class RegressionSuiteConfig(Section):
    """lm-eval benchmarks of every Nth checkpoint during training."""

    tasks: list[str]
    every: int = Field(ge=1)
    limit: int | None = Field(ge=1)
    shots: int | None = Field(ge=0)
    max_gen_toks: int = Field(ge=1)
    threshold: float = Field(ge=0)
    stop: bool
    gpu_memory: float = Field(gt=0, le=1)


TagName = Annotated[str, Field(pattern=r"^[^<>/\s]+$")]


class TagCountConfig(Section):
    """The reward part `tag_count`: the names of the two tags, and the cost of a character behind the last one."""

    tags: tuple[TagName, TagName] = ("reasoning", "answer")
    trailing_cost: float = Field(default=0.0, ge=0)
