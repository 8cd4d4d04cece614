"""The configuration of a command with all of its sections, and the checks across them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, ValidationError, model_validator

from grpo_gsm8k.config.cluster_config import ClusterConfig
from grpo_gsm8k.config.command_config import BudgetConfig, DoctorConfig, PipelineConfig, PushConfig, ReportConfig
from grpo_gsm8k.config.data_config import DataConfig
from grpo_gsm8k.config.determinism import nondeterminism, with_determinism
from grpo_gsm8k.config.engine_limits import with_max_num_seqs
from grpo_gsm8k.config.eval_config import EvalConfig
from grpo_gsm8k.config.fields import Device, FolderName, Section, Seed, refuse_repeated
from grpo_gsm8k.config.fine_tuning_config import PreprocessConfig, SftConfig, TracesConfig
from grpo_gsm8k.config.model_config import ModelSection
from grpo_gsm8k.config.policy_gradient_config import PolicyGradientConfig
from grpo_gsm8k.config.process_config import ActorConfig, LearnerConfig
from grpo_gsm8k.config.prompt_config import PromptConfig
from grpo_gsm8k.config.tracker_config import CompletionTablesConfig, ConsoleConfig, WandbConfig
from grpo_gsm8k.config_keys import dotted_keys, unknown_key
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import AnswerKind, Locale

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# Of a GPU, for two engines. vLLM refuses to start unless its whole share is free, and what the driver and NCCL hold for
# a process, about 0.7 GiB before vLLM looks, is outside of any share, for the new engine and for the running one.
ENGINES_LIMIT = 0.94


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
        "scale",
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
    private_files: bool = True
    deterministic: bool = False
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
    tracker: list[Literal["wandb", "tensorboard"]] = ["wandb"]  # noqa: RUF012 - pydantic copies it
    completion_tables: CompletionTablesConfig = CompletionTablesConfig()
    console: ConsoleConfig = ConsoleConfig()
    wandb: WandbConfig
    cluster: ClusterConfig = ClusterConfig()

    _resolve_max_num_seqs = model_validator(mode="before")(with_max_num_seqs)
    _resolve_determinism = model_validator(mode="before")(with_determinism)

    @property
    def engines_here(self) -> int:
        """Engines of a training run on this machine; with a cluster, the most that may be."""
        most = self.actor.replicas
        return most if self.cluster.kind == "local" else min(most, self.cluster.actors_per_node)

    @property
    def all_threads(self) -> int:
        """CPU threads of the learner and of the engines on this machine; too few while a number is still `auto`."""
        return self.learner.all_threads + self.actor.threads * self.engines_here

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
    def _check_live(self) -> Self:
        if self.report.live and self.command != "report":
            raise ValueError(
                f"report.live=true has no effect with command={self.command}: start command=report report.live=true in "
                "another terminal"
            )
        return self

    @model_validator(mode="after")
    def _check_tracker(self) -> Self:
        refuse_repeated("tracker", self.tracker, "give each tracker once")
        if self.wandb.mode in ("online", "offline") and "wandb" not in self.tracker:
            raise ValueError(
                f"wandb.mode={self.wandb.mode} has no effect with tracker={self.tracker}: add wandb to tracker, or set "
                "wandb.mode=null"
            )
        return self

    @model_validator(mode="after")
    def _check_learner_device(self) -> Self:
        """Refuse an engine on the learner's GPU unless `actor.device` is that GPU, as in preset=one_gpu.

        Ranks of a learner of several GPUs share theirs with no engine.
        """
        actor, learner = self.actor.device, self.learner.device
        if self.command not in ("sft", "policy_gradient", "doctor") or "cpu" in (actor, learner):
            return self
        engines = [f"cuda:{n}" for n in range(self.actor.first_device(0), self.actor.first_device(self.engines_here))]
        if len(self.learner.rank_devices) > 1:
            if both := sorted(set(engines) & set(self.learner.rank_devices)):
                raise ValueError(
                    f"learner.devices has {both[0]}, the GPU of an engine (actor.replicas={self.engines_here} from "
                    f"actor.device={actor} on): name other GPUs in learner.devices and learner.device"
                )
            return self
        if actor != learner and learner in engines:
            raise ValueError(
                f"actor.replicas={self.engines_here} engines from actor.device={actor} on would share "
                f"learner.device={learner}: set learner.device=cuda:{self.actor.first_device(self.engines_here)}"
            )
        return self

    @model_validator(mode="after")
    def _check_tensor_parallel(self) -> Self:
        """Refuse what an engine of several processes has not been shown to do exactly."""
        ways = self.actor.tensor_parallel
        if ways == 1 or self.command not in ("sft", "policy_gradient", "doctor"):
            return self
        if self.learner.lora.enabled and self.actor.lora == "adapter":
            raise ValueError(f"actor.tensor_parallel={ways} loads whole models only: set actor.lora=merged")
        if self.actor.device == self.learner.device != "cpu":
            raise ValueError(
                f"actor.tensor_parallel={ways} needs GPUs without a learner: set learner.device=cuda:{ways}"
            )
        if self.command != "sft" and self.policy_gradient.regression_suite.tasks:
            raise ValueError(
                f"policy_gradient.regression_suite.tasks needs room on one GPU beside the engine, which uses {ways}: "
                "leave them out, or set actor.tensor_parallel=1"
            )
        return self

    @model_validator(mode="after")
    def _check_sleep(self) -> Self:
        """Refuse an engine that sleeps between updates unless the learner shares its GPU and waits for it."""
        if not self.actor.sleep_between_updates or self.command not in ("sft", "policy_gradient", "doctor"):
            return self
        shared = self.actor.device == self.learner.device
        if self.command != "sft" and shared and self.policy_gradient.max_staleness == 0:
            return self
        raise ValueError(
            "actor.sleep_between_updates=true needs an engine that generates for policy gradient on the learner's GPU "
            "while the learner waits: use command=policy_gradient preset=one_gpu policy_gradient.max_staleness=0, or "
            "set actor.sleep_between_updates=false"
        )

    @model_validator(mode="after")
    def _check_determinism(self) -> Self:
        if not self.deterministic or self.command not in ("sft", "policy_gradient", "doctor"):
            return self
        method = None if self.command == "sft" else self.policy_gradient
        adapter = self.learner.lora.enabled and self.actor.lora == "adapter"
        reason = nondeterminism(method, self.actor, adapter, self.cluster)
        if reason is not None:
            raise ValueError(f"deterministic=true is for runs that repeat bit by bit, but {reason}")
        return self

    @model_validator(mode="after")
    def _check_late(self) -> Self:
        """Refuse settings whose promise a batch of what is finished first, or of several versions, would break."""
        late = self.policy_gradient.late
        if late == "wait" or self.command not in ("policy_gradient", "doctor"):
            return self
        if self.learner.deterministic:
            raise ValueError(
                f"learner.deterministic=true is for runs that repeat bit by bit, but with policy_gradient.late={late} "
                "the batches depend on timing: set policy_gradient.late=wait or learner.deterministic=false"
            )
        if late == "partial" and self.learner.lora.enabled and self.actor.lora == "adapter":
            raise ValueError(
                "policy_gradient.late=partial continues completions under newer weights, but with actor.lora=adapter "
                "they keep the adapter that they began with: set actor.lora=merged or policy_gradient.late=drop"
            )
        return self

    @model_validator(mode="after")
    def _check_gpu_memory(self) -> Self:
        suite = self.policy_gradient.regression_suite
        total = self.actor.gpu_memory + suite.gpu_memory
        if not suite.tasks or self.actor.device == "cpu" or total <= ENGINES_LIMIT + 1e-9:
            return self
        rest = round(ENGINES_LIMIT - suite.gpu_memory, 4)
        fix = f"actor.gpu_memory={rest:g}" if rest > 0 else "policy_gradient.regression_suite.gpu_memory=0.2"
        raise ValueError(
            f"actor.gpu_memory={self.actor.gpu_memory:g} and policy_gradient.regression_suite.gpu_memory="
            f"{suite.gpu_memory:g} of one GPU are more than {ENGINES_LIMIT:g}, beyond which a second engine cannot "
            f"start: set {fix}"
        )

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
