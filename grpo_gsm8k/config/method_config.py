"""The method of a policy-gradient run: loss, advantage, ratio, clips, corrections, and which of them go together."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from grpo_gsm8k.config.fields import Section, changed_keys
from grpo_gsm8k.config.loss_config import (
    IGNORES_CLIPRANGE,
    OF_BEHAVIOUR,
    PER_COMPLETION,
    WITH_CLIPRANGE,
    WITH_DUAL_CLIP,
    WITH_RATIO_LEVEL,
    ClipCovConfig,
    DpoConfig,
    KlCovConfig,
    LossType,
    M2poConfig,
    SapoConfig,
    VespoConfig,
)
from grpo_gsm8k.config.objective_config import CriticConfig, KlConfig, OffPolicyConfig
from grpo_gsm8k.config.teacher_config import TeacherConfig

Advantage = Literal[
    "reward",
    "greedy_baseline",
    "group_mean",
    "group_mean_std",
    "leave_one_out",
    "batch_whitened",
    "group_mean_whitened",
    "group_mean_rescaled",
    "length_weighted",
    "mean_normalized",
    "pass_at_k",
    "preference",
    "token_whitened",
    "gae",
    "distill",
]
PER_TOKEN = ("token_whitened", "gae", "distill")  # the others are the same for all tokens of a completion
_DEFAULT_ADVANTAGE: dict[LossType, Advantage] = {
    "no_baseline": "reward",
    "reinforce_with_baseline": "group_mean",
    "dpo": "preference",
    "grpo_clip": "group_mean_std",
    "ppo_clip": "gae",
    "cispo": "group_mean_std",
    "sapo": "group_mean_std",
    "dppo_tv": "group_mean",
    "dppo_kl": "group_mean",
    "gmpo": "group_mean_std",
    "vespo": "group_mean_std",
    "m2po": "group_mean_std",
    "clip_cov": "group_mean_std",
    "kl_cov": "group_mean_std",
}
_PER_GROUP = (
    *("group_mean", "group_mean_std", "leave_one_out", "group_mean_whitened", "group_mean_rescaled"),
    *("length_weighted", "mean_normalized", "pass_at_k", "preference"),
)
_RIGHT_OR_WRONG = ({"correct": 1.0}, {"exact_text": 1.0})
_LOSS_CONSTANTS = ("dpo", "sapo", "vespo", "m2po", "clip_cov", "kl_cov")  # sections of the losses of the same names
_TAKES_CONSTANTS = ("sapo", "vespo", "kl_cov")  # the others belong to what is computed before the step
# GSPO clips at 3e-4. A token-level range such as 0.2 would never clip a geometric mean.
_MAX_SEQUENCE_CLIPRANGE = 0.05


class MethodConfig(Section):
    """What is optimized."""

    loss_type: LossType
    advantage: Advantage | None
    ratio: Literal["token", "sequence", "geometric_mean", "geometric_mean_token"]
    reduction: Literal["sequence_mean", "token_mean", "sequence_sum", "constant"]
    group_size: int = Field(ge=1)
    cliprange: float | None = Field(gt=0, lt=1)
    cliprange_high: float | None = Field(gt=0)
    dual_clip: float | None = Field(gt=1)
    dpo: DpoConfig = DpoConfig()
    sapo: SapoConfig = SapoConfig()
    vespo: VespoConfig = VespoConfig()
    m2po: M2poConfig = M2poConfig()
    clip_cov: ClipCovConfig = ClipCovConfig()
    kl_cov: KlCovConfig = KlCovConfig()
    advantage_eps: float = Field(gt=0)
    pass_k: int | None = Field(default=None, ge=2)
    entropy_coef: float = Field(ge=0)
    off_policy: OffPolicyConfig
    kl: KlConfig
    critic: CriticConfig
    teacher: TeacherConfig = TeacherConfig()
    overlong: Literal["keep", "mask", "penalty"]
    active_sampling: int = Field(ge=0)
    rewards: dict[str, float]

    @property
    def advantage_name(self) -> Advantage:
        """The configured advantage, or the default of `loss_type`."""
        return self.advantage or _DEFAULT_ADVANTAGE[self.loss_type]

    @model_validator(mode="after")
    def _check_advantage(self) -> Self:
        name = self.advantage_name
        if name in _PER_GROUP and self.group_size < 2:
            raise ValueError(f"advantage={name} needs groups: set policy_gradient.group_size to 2 or more")
        if self.loss_type == "no_baseline" and name != "reward":
            raise ValueError(f"loss_type=no_baseline excludes advantage={name}: set loss_type=reinforce_with_baseline")
        if name == "gae" and self.critic.kind == "none":
            raise ValueError(
                f"loss_type={self.loss_type} with advantage=gae needs a critic: use policy_gradient=ppo, or set "
                "policy_gradient.critic.kind=shared or separate"
            )
        if name != "gae" and self.critic.kind != "none":
            raise ValueError(f"critic.kind={self.critic.kind} has no effect with advantage={name}: set it to none")
        if self.active_sampling and name not in _PER_GROUP:
            raise ValueError(f"active_sampling={self.active_sampling} has no effect with advantage={name}: set it to 0")
        return self

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        """Refuse what a loss over pairs has no place for."""
        if (self.loss_type == "dpo") != (self.advantage_name == "preference"):
            raise ValueError(
                f"loss_type={self.loss_type} excludes advantage={self.advantage_name}: dpo and preference belong "
                "together; set policy_gradient.advantage=null"
            )
        if self.loss_type != "dpo":
            return self
        if self.reduction != "sequence_sum":
            raise ValueError(
                f"reduction={self.reduction} has no meaning with loss_type=dpo, whose scores are sums over the tokens "
                "of a completion: set policy_gradient.reduction=sequence_sum"
            )
        if self.off_policy.proximal != "behaviour":
            raise ValueError(
                "off_policy.proximal=recomputed has no effect with loss_type=dpo, which has no importance ratio: set "
                "policy_gradient.off_policy.proximal=behaviour"
            )
        if self.kl.coef and self.kl.place == "reward":
            raise ValueError(
                "kl.place=reward could change the order of the rewards that loss_type=dpo compares: set "
                "policy_gradient.kl.place=loss, or policy_gradient.kl.coef=0"
            )
        return self

    @property
    def needs_reference(self) -> bool:
        """Whether the update needs the reference's log-probabilities."""
        return self.kl.coef > 0 or self.loss_type == "dpo"

    @model_validator(mode="after")
    def _check_teacher(self) -> Self:
        """Refuse a teacher without effect, and what has no meaning beside one; that there is one, the start checks."""
        name, teacher = self.advantage_name, self.teacher
        if name != "distill":
            if changed := changed_keys(teacher):
                raise ValueError(
                    f"teacher.{changed[0]} has no effect with advantage={name}: set policy_gradient.advantage=distill, "
                    "or drop the key"
                )
            return self
        if teacher.task_weight and self.group_size < 2:
            raise ValueError(
                f"teacher.task_weight={teacher.task_weight:g} needs groups: set policy_gradient.group_size to 2 or more"
            )
        if self.overlong == "penalty" and not teacher.task_weight:
            raise ValueError(
                "overlong=penalty has no effect with teacher.task_weight=0, which leaves the rewards out: set "
                "policy_gradient.overlong=keep or mask"
            )
        if self.kl.coef and self.kl.place == "reward":
            raise ValueError(
                "kl.place=reward is one sum per completion, but advantage=distill has a divergence per token: set "
                "policy_gradient.kl.place=loss"
            )
        if self.ratio in ("sequence", "geometric_mean"):
            raise ValueError(
                f"ratio={self.ratio} adds up the advantages of a completion's tokens, but advantage=distill is meant "
                "for each token alone: set policy_gradient.ratio=token"
            )
        return self

    @model_validator(mode="after")
    def _check_pass_k(self) -> Self:
        name = self.advantage_name
        if (self.pass_k is None) == (name == "pass_at_k"):
            needed = "needs policy_gradient.pass_k: set it to 2 or more, up to group_size"
            useless = f"has no effect with policy_gradient.pass_k={self.pass_k}: set pass_k to null"
            raise ValueError(f"advantage={name} {needed if self.pass_k is None else useless}")
        if self.pass_k is not None and self.pass_k > self.group_size:
            raise ValueError(
                f"pass_k={self.pass_k} exceeds the {self.group_size} completions of a group: lower "
                "policy_gradient.pass_k or raise policy_gradient.group_size"
            )
        return self

    @model_validator(mode="after")
    def _check_rewards_of_advantage(self) -> Self:
        """Refuse rewards that the formula of the advantage is not meant for."""
        name = self.advantage_name
        if name not in ("pass_at_k", "mean_normalized", "greedy_baseline"):
            return self
        if self.overlong == "penalty" and name != "greedy_baseline":
            raise ValueError(
                f"overlong=penalty makes rewards negative, which advantage={name} has no meaning for: set "
                "policy_gradient.overlong=keep or mask"
            )
        if self.kl.coef and self.kl.place == "reward":
            raise ValueError(
                f"kl.place=reward changes the rewards that advantage={name} is defined for: set "
                "policy_gradient.kl.place=loss"
            )
        negative = [part for part, weight in self.rewards.items() if weight < 0 or (part == "soft_overlong" and weight)]
        if name == "mean_normalized" and negative:
            raise ValueError(
                f"advantage=mean_normalized needs rewards of at least 0, rewards.{negative[0]} is below: drop it, or "
                "set policy_gradient.advantage=group_mean"
            )
        if name == "pass_at_k" and {part: w for part, w in self.rewards.items() if w} not in _RIGHT_OR_WRONG:
            raise ValueError(
                "advantage=pass_at_k needs rewards of 0 and 1: set 'policy_gradient.rewards={correct: 1.0}'"
            )
        return self

    @property
    def loss_constants(self) -> dict[str, float]:
        """The constants that `loss_type` takes beside its inputs, by name."""
        return getattr(self, self.loss_type).model_dump() if self.loss_type in _TAKES_CONSTANTS else {}

    @property
    def clip_bounds(self) -> tuple[float, float]:
        """The bounds of the importance ratio; infinite where there is none."""
        high = self.cliprange if self.cliprange_high is None else self.cliprange_high
        return -math.inf if self.cliprange is None else 1 - self.cliprange, math.inf if high is None else 1 + high

    @model_validator(mode="after")
    def _check_ratio_and_clip(self) -> Self:
        loss = self.loss_type
        if self.ratio != "token" and loss not in WITH_RATIO_LEVEL:
            raise ValueError(
                f"ratio={self.ratio} needs loss_type=grpo_clip or ppo_clip: set policy_gradient.ratio=token"
            )
        if self.dual_clip is not None and loss not in WITH_DUAL_CLIP:
            raise ValueError(f"dual_clip has no effect with loss_type={loss}: set it to null")
        for key in ("cliprange", "cliprange_high"):
            if getattr(self, key) is not None and loss not in (*WITH_CLIPRANGE, *IGNORES_CLIPRANGE):
                raise ValueError(f"{key} has no effect with loss_type={loss}: set policy_gradient.{key}=null")
        widest = max(self.cliprange or 0, self.cliprange_high or 0)
        if self.ratio.startswith("geometric_mean") and widest > _MAX_SEQUENCE_CLIPRANGE:
            raise ValueError(
                f"cliprange={widest} is too wide for ratio={self.ratio}, so nothing would be clipped: set "
                "policy_gradient.cliprange=3e-4 policy_gradient.cliprange_high=4e-4, or use policy_gradient=gspo"
            )
        return self

    @model_validator(mode="after")
    def _check_loss_constants(self) -> Self:
        for name in _LOSS_CONSTANTS:
            section = getattr(self, name)
            changed = changed_keys(section)
            if changed and name != self.loss_type:
                raise ValueError(
                    f"{name}.{changed[0]} has no effect with loss_type={self.loss_type}: set "
                    f"policy_gradient.loss_type={name}, or drop the key"
                )
        return self

    @model_validator(mode="after")
    def _check_advantage_of_loss(self) -> Self:
        """Refuse an advantage per token where the loss is of the completion, and the reverse."""
        name = self.advantage_name
        per_token = name in PER_TOKEN
        if self.loss_type in PER_COMPLETION and per_token:
            raise ValueError(
                f"loss_type={self.loss_type} has one weight for a whole completion, but advantage={name} differs "
                "from token to token: set policy_gradient.advantage=group_mean_std"
            )
        if self.ratio == "geometric_mean_token" and not per_token:
            raise ValueError(
                f"ratio=geometric_mean_token equals geometric_mean with advantage={name}, which is the "
                "same for all tokens of a completion: set policy_gradient.ratio=geometric_mean"
            )
        if self.loss_type == "gmpo" and self.reduction != "sequence_mean":
            raise ValueError(
                f"loss_type=gmpo is a mean over completions, reduction={self.reduction} weighs them by length: set "
                "policy_gradient.reduction=sequence_mean"
            )
        off = self.off_policy
        if self.loss_type == "gmpo" and (off.reject.token or (off.correction != "none" and off.level == "token")):
            raise ValueError(
                "loss_type=gmpo has one loss per completion, so tokens cannot be weighed or rejected: set "
                "policy_gradient.off_policy.level=geometric_mean policy_gradient.off_policy.reject.token=null"
            )
        if self.loss_type in OF_BEHAVIOUR and self.off_policy.proximal == "recomputed":
            raise ValueError(
                f"off_policy.proximal=recomputed has no meaning with loss_type={self.loss_type}, whose weight is over "
                "the policy that sampled: set policy_gradient.off_policy.proximal=behaviour"
            )
        return self
