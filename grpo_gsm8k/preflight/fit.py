"""Whether a configuration fits its devices, and the nearest one that does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.preflight.engine_memory import ActorMemory, actor_memory
from grpo_gsm8k.preflight.memory import LearnerMemory, learner_memory, load_of, longest_sequence

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.parameters import ModelShape

CUDA_CONTEXT = 0.6 * 2**30  # the driver's context, kernels and cuBLAS workspaces of one process
TORCH_ON_CPU = 0.8 * 2**30  # the learner's process with torch and transformers imported
FRAGMENTATION = 0.05  # of what comes and goes: blocks of other sizes than those that were freed
SHARED_ACTOR = 0.4  # the actor's part of a device that both share, as in preset=one_gpu
MIN_BUDGET = 256


@dataclass(frozen=True, slots=True)
class Sides:
    """What both processes need of their devices, in bytes. `shared`: it is the same device."""

    learner: LearnerMemory
    actor: ActorMemory
    learner_need: float
    learner_room: float
    actor_need: float
    actor_room: float
    shared: bool

    @property
    def learner_fits(self) -> bool:
        """The learner's part."""
        return self.learner_need <= self.learner_room

    @property
    def actor_fits(self) -> bool:
        """The actor's part: its weights, and a cache that holds at least one sequence of the full context."""
        return self.actor_need <= self.actor_room and self.actor.sequences >= 1

    @property
    def fits(self) -> bool:
        """Both."""
        return self.learner_fits and self.actor_fits


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A configuration that fits, as arguments of the command line, and what it then needs in bytes."""

    overrides: tuple[str, ...]
    sides: Sides


def judge(shape: ModelShape, config: Config, actor_bytes: float, learner_bytes: float, shared: bool) -> Sides:
    """Compare the needs with devices of so many bytes; when `shared`, both have to do with one of `learner_bytes`."""
    pg = config.policy_gradient
    policy_gradient = config.command != "sft"
    learner = learner_memory(
        shape,
        config.learner,
        load_of(config),
        reference=policy_gradient and pg.kl.coef > 0 and not config.learner.lora.enabled,
        critic=pg.critic.kind if policy_gradient else "none",
    )
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
        learner_need=needed(learner, config.learner.device == "cpu"),
        learner_room=learner_bytes,
        actor_need=actor.total,
        actor_room=room,
        shared=shared,
    )


def needed(learner: LearnerMemory, cpu: bool) -> float:
    """The learner's peak with what its process and its allocator take besides."""
    come_and_go = learner.peak - learner.lasting
    if cpu:
        return learner.peak + learner.host + TORCH_ON_CPU
    return learner.peak + FRAGMENTATION * come_and_go + CUDA_CONTEXT


def nearest(
    shape: ModelShape, config: Config, actor_bytes: float, learner_bytes: float, shared: bool
) -> Suggestion | None:
    """The first of these that fits: a smaller token budget, then checkpointing, 8-bit Adam, LoRA, 4 bits besides.

    Each of the latter is tried with every budget, the configured one first, and keeps what came before it. None when
    nothing helps, for instance because it is the actor that does not fit.
    """
    taken: list[str] = []
    for step in _steps(config):
        taken += [override for override in step if override not in taken]
        for budget in _budgets(config):
            overrides = taken + ([] if budget == config.learner.token_budget else [f"learner.token_budget={budget}"])
            if not overrides:
                continue
            try:
                changed = with_overrides(config, overrides)
            except UserError:  # the configuration does not go with this step
                continue
            sides = judge(shape, changed, actor_bytes, learner_bytes, shared)
            if sides.fits:
                return Suggestion(tuple(overrides), sides)
    return None


def with_overrides(config: Config, overrides: list[str]) -> Config:
    """`config` with plain `section.key=value` arguments applied. Raises UserError for what does not go together."""
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


def _steps(config: Config) -> list[list[str]]:
    learner = config.learner
    steps: list[list[str]] = [[]]
    if not learner.gradient_checkpointing:
        steps.append(["learner.gradient_checkpointing=true"])
    if learner.optimizer == "adamw" and not learner.lora.enabled:
        steps.append(["learner.optimizer=adamw_8bit"])
    if not learner.lora.enabled:
        steps.append(["learner.lora.enabled=true"])
    if learner.quantization == "none":
        steps.append(["learner.quantization=nf4", "actor.lora=merged"])
    return steps


def _budgets(config: Config) -> list[int]:
    """The configured token budget and its halves, down to one that holds the longest sequence."""
    budgets, smallest = [config.learner.token_budget], max(longest_sequence(config), MIN_BUDGET)
    while budgets[-1] // 2 >= smallest:
        budgets.append(budgets[-1] // 2)
    return budgets
