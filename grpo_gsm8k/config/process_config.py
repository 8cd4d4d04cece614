"""The sections `actor` and `learner`: the two processes of a training run."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from grpo_gsm8k.config.cpu_precision import resolved_dtype
from grpo_gsm8k.config.fields import Beta, Cores, Device, Dtype, Schedule, Section, Threads, refuse_repeated


def with_dtype(values: Any) -> Any:
    """Replace `dtype: auto` by what it means on this machine, so that a saved configuration says what a run used."""
    if not isinstance(values, dict):
        return values
    if values.get("dtype") != "auto":
        return values
    return {**values, "dtype": resolved_dtype("auto", values.get("device"))}


class ActorConfig(Section):
    """The actor process: device, limits of the vLLM engine, and timeouts."""

    engine: Literal["vllm", "scripted"]
    scripted_lengths: Literal["uniform", "lognormal"] = "uniform"
    device: Device
    replicas: int = Field(ge=1)
    tensor_parallel: int = Field(default=1, ge=1)
    dtype: Dtype
    gpu_memory: float = Field(gt=0, le=1)
    kv_cache_mb: int = Field(ge=1)
    max_model_len: int = Field(ge=8)
    max_num_seqs: int = Field(ge=1)
    max_batched_tokens: int = Field(ge=1)
    enforce_eager: bool
    async_scheduling: bool = False
    sleep_between_updates: bool = False
    prefix_caching: bool
    lora: Literal["adapter", "merged"]
    threads: Threads
    cores: Cores
    canary_tolerance: float = Field(gt=0)
    probe: bool
    start_timeout_s: float = Field(gt=0)
    progress_timeout_s: float = Field(gt=0)
    max_restarts: int = Field(ge=0)

    _resolve_dtype = model_validator(mode="before")(with_dtype)

    @model_validator(mode="after")
    def _check_scripted(self) -> Self:
        if self.scripted_lengths != "uniform" and self.engine != "scripted":
            raise ValueError(
                f"scripted_lengths={self.scripted_lengths} has no effect with engine={self.engine}: set "
                "actor.scripted_lengths=uniform or actor.engine=scripted"
            )
        return self

    @model_validator(mode="after")
    def _check_scheduling(self) -> Self:
        if self.async_scheduling and self.device == "cpu":
            raise ValueError("async_scheduling=true has no effect on a CPU: set actor.async_scheduling=false")
        return self

    def first_device(self, index: int) -> int:
        """Return the number of the first GPU of engine `index`."""
        return int(self.device.removeprefix("cuda:")) + index * self.tensor_parallel

    @model_validator(mode="after")
    def _check_tensor_parallel(self) -> Self:
        if self.tensor_parallel > 1 and self.sleep_between_updates:
            raise ValueError(
                f"tensor_parallel={self.tensor_parallel}: an engine of several processes does not sleep: set "
                "actor.sleep_between_updates=false"
            )
        return self

    @model_validator(mode="after")
    def _check_sleep(self) -> Self:
        if self.sleep_between_updates and self.device == "cpu":
            raise ValueError("vLLM cannot sleep on a CPU: set actor.sleep_between_updates=false")
        if self.sleep_between_updates and self.async_scheduling:
            raise ValueError(
                "async_scheduling=true keeps a step in flight when the engine is to sleep: set "
                "actor.async_scheduling=false or actor.sleep_between_updates=false"
            )
        return self

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
    """The learner: its device, or the devices of its ranks, precision, optimizer, and timeouts."""

    device: Device
    devices: list[Annotated[str, Field(pattern=r"^cuda:\d+$")]] | None = Field(default=None, min_length=1)
    ranks: int = Field(default=1, ge=1)
    shard: Literal["none", "optimizer", "full"] = "none"
    rank_timeout_s: float = Field(default=300.0, gt=0)
    dtype: Dtype
    threads: Threads
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

    _resolve_dtype = model_validator(mode="before")(with_dtype)

    @property
    def rank_devices(self) -> list[str]:
        """Devices by rank: as many as there are ranks, all of them `cpu` on a CPU."""
        return self.devices or [self.device] * self.ranks

    @property
    def all_threads(self) -> int:
        """CPU threads of all ranks together."""
        return self.threads * len(self.rank_devices)

    @model_validator(mode="after")
    def _check_devices(self) -> Self:
        if self.devices is None:
            if self.ranks > 1 and self.device != "cpu":
                number = int(self.device.removeprefix("cuda:"))
                listed = ",".join(f"cuda:{number + i}" for i in range(self.ranks))
                raise ValueError(
                    f"ranks={self.ranks} is for a learner on the CPU, but learner.device={self.device}: set "
                    f"learner.devices=[{listed}] and learner.ranks=1"
                )
            return self
        if self.device == "cpu":
            raise ValueError("devices lists GPUs, but learner.device=cpu: set learner.ranks=N for N ranks on the CPU")
        if self.ranks > 1:
            raise ValueError(f"ranks={self.ranks} beside learner.devices, one rank for each: set learner.ranks=1")
        refuse_repeated("devices", self.devices, "each rank needs a GPU of its own, so name each once")
        if self.devices[0] != self.device:
            raise ValueError(
                f"devices={self.devices} begins with another GPU than learner.device={self.device}: set "
                f"learner.device={self.devices[0]}"
            )
        return self

    @model_validator(mode="after")
    def _check_ranks(self) -> Self:
        if self.shard != "none" and len(self.rank_devices) == 1:
            raise ValueError(f"shard={self.shard} has no effect with one rank: set learner.shard=none")
        self._check_full()
        if len(self.rank_devices) > 1 and self.rank_timeout_s >= self.progress_timeout_s:
            raise ValueError(
                f"rank_timeout_s={self.rank_timeout_s:g} is not below progress_timeout_s={self.progress_timeout_s:g}, "
                "after which the whole learner counts as stuck: lower learner.rank_timeout_s"
            )
        return self

    def _check_full(self) -> None:
        """Refuse what does not work, or was never tried, with weights that are divided among the ranks."""
        refused = {
            "lora.enabled=true, whose base is frozen": self.lora.enabled,
            "optimizer=adamw_8bit, whose blocks of 256 values would be others": self.optimizer == "adamw_8bit",
            "compile=true": self.compile,
        }
        for setting, is_set in refused.items():
            if self.shard == "full" and is_set:
                raise ValueError(f"shard=full does not work with learner.{setting}: set learner.shard=none")

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
