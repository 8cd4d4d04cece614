"""Whether a configuration fits its devices, and the nearest one that does."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.config.gpu_shares import CUDA_CONTEXT, learner_bytes, learner_bytes_alone, suite_share
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.preflight.engine_memory import ActorMemory, actor_memory
from grpo_gsm8k.preflight.host_copies import host_copies
from grpo_gsm8k.preflight.memory import LearnerMemory, learner_memory, load_of
from grpo_gsm8k.preflight.workload import TYPICAL_PROMPT, workload_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.parameters import ModelShape

TORCH_ON_CPU = 0.8 * 2**30  # the learner's process with torch and transformers imported
FRAGMENTATION = 0.05  # share of temporary memory that the allocator cannot reuse because block sizes differ
SHARED_ACTOR = 0.4  # the actor's share of a device used by both processes, as in preset=one_gpu
EXCHANGE = 0.5 * 2**30  # assumed, of a rank on a GPU: NCCL's buffers, and a bucket of gradients
MIN_BUDGET = 256  # tokens
FEW_SEQUENCES = 8  # with fewer at once an engine mostly waits for its memory: every step reads all weights
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85)  # of a GPU, for the engine
MIN_CONTEXT = 1024  # tokens; prompt and answer of a GSM8K problem


@dataclass(frozen=True, slots=True)
class Sides:
    """Memory that the processes need and have, in bytes. `shared`: on the same device. `suite`: a second engine."""

    learner: LearnerMemory
    actor: ActorMemory
    learner_need: float
    learner_room: float
    actor_need: float
    actor_room: float
    shared: bool
    suite: ActorMemory | None = None
    max_sequences: int = FEW_SEQUENCES  # actor.max_num_seqs
    learner_room_awake: float | None = (
        None  # for what outlasts an update, beside an engine that only sleeps between them
    )

    @property
    def learner_fits(self) -> bool:
        """Whether the learner fits."""
        lasts = self.learner_room_awake is None or self.learner.lasting + CUDA_CONTEXT <= self.learner_room_awake
        return self.learner_need <= self.learner_room and lasts

    @property
    def actor_fits(self) -> bool:
        """Whether the actor fits: its weights, and a cache for at least one sequence of the full context."""
        return self.actor_need <= self.actor_room and self.actor.sequences >= 1

    @property
    def suite_fits(self) -> bool:
        """Whether the regression suite's engine fits, if there is one."""
        return self.suite is None or self.suite.sequences >= 1

    @property
    def fits(self) -> bool:
        """Whether all processes fit."""
        return self.learner_fits and self.actor_fits and self.suite_fits

    @property
    def roomy(self) -> bool:
        """Whether the actor's cache holds enough sequences for more than a crawl, or as many as are configured."""
        return self.actor.sequences >= min(FEW_SEQUENCES, self.max_sequences)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A configuration that fits, as command-line overrides, and its memory."""

    overrides: tuple[str, ...]
    sides: Sides


def evaluate_fit(shape: ModelShape, config: Config, actor_bytes: float, learner_room: float, shared: bool) -> Sides:
    """Compare the needs with the devices' memory in bytes. If `shared`, both processes use the learner's device."""
    work = workload_of(config)
    learner = learner_memory(shape, config.learner, load_of(config), reference=work.reference, critic=work.critic)
    share = config.actor.gpu_memory
    if shared and config.actor.device != config.learner.device:
        share = min(share, SHARED_ACTOR)
    on_cpu = config.actor.device == "cpu"
    room = actor_bytes if on_cpu else share * actor_bytes
    actor = actor_memory(shape, config, actor_bytes, share)
    suite, copies = suite_share(config), host_copies(shape, config).needed
    awake = None
    if shared and on_cpu:
        learner_room -= actor.total
    elif shared:
        total = learner_room
        learner_room = learner_bytes(config, total, share) + CUDA_CONTEXT  # which is part of the need
        if config.actor.sleep_between_updates:
            awake, learner_room = learner_room, learner_bytes_alone(config, total) + CUDA_CONTEXT
    return Sides(
        learner=learner,
        actor=actor,
        learner_need=learner_need(
            learner, copies if config.learner.device == "cpu" else None, len(config.learner.rank_devices)
        ),
        learner_room=learner_room,
        actor_need=actor.total,
        actor_room=room,
        shared=shared,
        suite=actor_memory(shape, config, actor_bytes, suite) if suite else None,
        max_sequences=config.actor.max_num_seqs,
        learner_room_awake=awake,
    )


def learner_need(learner: LearnerMemory, host_copies: float | None, ranks: int = 1) -> float:
    """Return the learner's peak plus the overhead of its process and allocator: on GPUs on each, on a CPU of all ranks.

    `host_copies` are those that the first rank of a learner on the CPU keeps in the same memory; None: it computes on
    GPUs.
    """
    if host_copies is not None:
        return ranks * (learner.peak + learner.host + TORCH_ON_CPU) + host_copies
    exchange = EXCHANGE if ranks > 1 else 0.0
    return learner.peak + FRAGMENTATION * (learner.peak - learner.lasting) + CUDA_CONTEXT + exchange


def nearest(
    shape: ModelShape, config: Config, actor_bytes: float, learner_room: float, shared: bool
) -> Suggestion | None:
    """Return the first change that fits: smaller token budgets, checkpointing, 8-bit Adam, LoRA, a 4-bit base.

    Changes accumulate in that order, and each is tried with every share of the engine and every budget, the configured
    ones first. All of it is tried again with shorter contexts. A change that leaves the engine only a few sequences at
    once is returned if there is no better one, and None if nothing helps.
    """
    found = None
    for overrides in _candidates(config):
        try:
            changed = with_overrides(config, overrides)
        except UserError:  # this change contradicts another key
            continue
        sides = evaluate_fit(shape, changed, actor_bytes, learner_room, shared)
        if sides.fits and sides.roomy:
            return Suggestion(tuple(overrides), sides)
        if sides.fits and found is None:
            found = Suggestion(tuple(overrides), sides)
    return found


def _candidates(config: Config) -> Iterator[list[str]]:
    """Yield the changes that `nearest` tries, in its order."""
    for context in _contexts(config):
        taken: list[str] = []
        for change in _changes(config):
            taken += [override for override in change if override not in taken]
            for share, budget in product(_shares(config), _budgets(config)):
                if overrides := [*taken, *share, *context, *budget]:
                    yield overrides


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


def _shares(config: Config) -> list[list[str]]:
    """Return changes of the engine's share of its GPU, none first."""
    actor = config.actor
    others = [share for share in SHARES if actor.device != "cpu" and share != actor.gpu_memory]
    return [[], *([f"actor.gpu_memory={share:g}"] for share in others)]


def _contexts(config: Config) -> list[list[str]]:
    """Return changes of the context, none first, and then its halves as long as a prompt and an answer fit."""
    contexts: list[list[str]] = [[]]
    length, needed = config.actor.max_model_len // 2, TYPICAL_PROMPT + config.training.max_new_tokens
    while length >= max(MIN_CONTEXT, needed):
        contexts.append([f"actor.max_model_len={length}"])
        length //= 2
    return contexts


def _budgets(config: Config) -> list[list[str]]:
    """Return changes of the token budget: none, and then its halves, down to one that holds the longest sequence."""
    budgets: list[list[str]] = [[]]
    budget, smallest = config.learner.token_budget // 2, max(workload_of(config).longest_sequence, MIN_BUDGET)
    while budget >= smallest:
        budgets.append([f"learner.token_budget={budget}"])
        budget //= 2
    return budgets
