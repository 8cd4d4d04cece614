"""Whether a configuration fits its devices, and the nearest one that does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.preflight.engine_memory import ActorMemory, actor_memory
from grpo_gsm8k.preflight.memory import LearnerMemory, learner_memory, load_of
from grpo_gsm8k.preflight.workload import workload_of

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.parameters import ModelShape

CUDA_CONTEXT = 0.6 * 2**30  # the driver's context, kernels and cuBLAS workspaces of one process
TORCH_ON_CPU = 0.8 * 2**30  # the learner's process with torch and transformers imported
FRAGMENTATION = 0.05  # share of temporary memory that the allocator cannot reuse because block sizes differ
SHARED_ACTOR = 0.4  # the actor's share of a device used by both processes, as in preset=one_gpu
MIN_BUDGET = 256  # tokens


@dataclass(frozen=True, slots=True)
class Sides:
    """Memory that both processes need and have, in bytes. `shared`: on the same device."""

    learner: LearnerMemory
    actor: ActorMemory
    learner_need: float
    learner_room: float
    actor_need: float
    actor_room: float
    shared: bool

    @property
    def learner_fits(self) -> bool:
        """Whether the learner fits."""
        return self.learner_need <= self.learner_room

    @property
    def actor_fits(self) -> bool:
        """Whether the actor fits: its weights, and a cache for at least one sequence of the full context."""
        return self.actor_need <= self.actor_room and self.actor.sequences >= 1

    @property
    def fits(self) -> bool:
        """Whether both processes fit."""
        return self.learner_fits and self.actor_fits


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A configuration that fits, as command-line overrides, and its memory."""

    overrides: tuple[str, ...]
    sides: Sides


def evaluate_fit(shape: ModelShape, config: Config, actor_bytes: float, learner_bytes: float, shared: bool) -> Sides:
    """Compare the needs with the devices' memory. If `shared`, both processes use one device of `learner_bytes`."""
    work = workload_of(config)
    learner = learner_memory(shape, config.learner, load_of(config), reference=work.reference, critic=work.critic)
    share = config.actor.gpu_memory
    if shared and config.actor.device != config.learner.device:
        share = min(share, SHARED_ACTOR)
    on_cpu = config.actor.device == "cpu"
    room = actor_bytes if on_cpu else share * actor_bytes
    actor = actor_memory(shape, config, actor_bytes, share)
    if shared:
        learner_bytes -= actor.total if on_cpu else share * actor_bytes
    return Sides(
        learner=learner,
        actor=actor,
        learner_need=learner_need(learner, config.learner.device == "cpu"),
        learner_room=learner_bytes,
        actor_need=actor.total,
        actor_room=room,
        shared=shared,
    )


def learner_need(learner: LearnerMemory, cpu: bool) -> float:
    """Return the learner's peak plus the overhead of its process and allocator."""
    if cpu:
        return learner.peak + learner.host + TORCH_ON_CPU
    return learner.peak + FRAGMENTATION * (learner.peak - learner.lasting) + CUDA_CONTEXT


def nearest(
    shape: ModelShape, config: Config, actor_bytes: float, learner_bytes: float, shared: bool
) -> Suggestion | None:
    """Return the first change that fits: smaller token budgets, checkpointing, 8-bit Adam, LoRA, a 4-bit base.

    Changes accumulate in that order, and each is tried with every budget, the configured one first. None if nothing
    helps, for example because the actor is what does not fit.
    """
    taken: list[str] = []
    for change in _changes(config):
        taken += [override for override in change if override not in taken]
        for budget in _budgets(config):
            overrides = taken + ([] if budget == config.learner.token_budget else [f"learner.token_budget={budget}"])
            if not overrides:
                continue
            try:
                changed = with_overrides(config, overrides)
            except UserError:  # this change contradicts another key
                continue
            sides = evaluate_fit(shape, changed, actor_bytes, learner_bytes, shared)
            if sides.fits:
                return Suggestion(tuple(overrides), sides)
    return None


def with_overrides(config: Config, overrides: list[str]) -> Config:
    """Apply plain `section.key=value` overrides. Raises UserError if the result is not a valid configuration."""
    import yaml

    from grpo_gsm8k.config import parse_config

    values: dict[str, Any] = config.model_dump(mode="json")
    for override in overrides:
        path, _, text = override.partition("=")
        *parents, last = path.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        section[last] = yaml.safe_load(text)
    return parse_config(values)


def _changes(config: Config) -> list[list[str]]:
    learner = config.learner
    changes: list[list[str]] = [[]]
    if not learner.gradient_checkpointing:
        changes.append(["learner.gradient_checkpointing=true"])
    if learner.optimizer == "adamw" and not learner.lora.enabled:
        changes.append(["learner.optimizer=adamw_8bit"])
    if not learner.lora.enabled:
        changes.append(["learner.lora.enabled=true"])
    if learner.quantization == "none":
        changes.append(["learner.quantization=nf4", "actor.lora=merged"])
    return changes


def _budgets(config: Config) -> list[int]:
    """Return the configured token budget and its halves, down to one that holds the longest sequence."""
    budgets, smallest = [config.learner.token_budget], max(workload_of(config).longest_sequence, MIN_BUDGET)
    while budgets[-1] // 2 >= smallest:
        budgets.append(budgets[-1] // 2)
    return budgets
