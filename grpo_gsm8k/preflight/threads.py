"""How many CPU threads actor and learner get with `threads: auto`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config

# Two cores, by hidden width: the embedded model (96) ran 1.91 times as fast with the cores split between both,
# SmolLM2-135M (576) 1.4 to 1.75 times as fast when both took turns with all of them. Nothing between was measured.
WIDE = 256
ACTOR_OF_A_GPU = 1  # the engine's scheduler is one Python thread
LEARNER_OF_A_GPU = 4  # casts and checksums of published weights


@dataclass(frozen=True, slots=True)
class Threads:
    """CPU threads of one engine and of the learner."""

    actor: int
    learner: int


def choose_threads(config: Config, hidden: int, cores: int) -> Threads:
    """Return the threads of both processes; numbers that are set stay as they are.

    On `cores` shared cores: a model of small width computes in steps too short to share, so each process gets its part
    of the cores. A wider one gets all of them, except a learner that works while the engine generates: twice as many
    threads as cores wait for each other at the end of every product, so it gets half.
    """
    engines = config.actor.replicas
    taking_turns = config.command == "sft" or config.policy_gradient.max_staleness == 0
    part = max(1, cores // (engines + 1))
    actor = learner = part
    if hidden >= WIDE:
        actor = max(1, cores // engines)
        learner = cores if taking_turns else max(1, cores // 2)
    elif config.command == "sft":
        learner = max(1, cores - 1)  # the engine works only for validations
    if config.actor.device != "cpu":
        actor, learner = ACTOR_OF_A_GPU, max(1, cores - engines)
    if config.learner.device != "cpu":
        learner = min(LEARNER_OF_A_GPU, cores)
        actor = actor if config.actor.device != "cpu" else max(1, cores // engines)
    pins = config.actor.cores, config.learner.cores
    actor, learner = (min(count, len(pin) or count) for count, pin in zip((actor, learner), pins, strict=True))
    return Threads(config.actor.threads or actor, config.learner.threads or learner)


def with_threads(config: Config, hidden: int, cores: int) -> Config:
    """Return the configuration with `choose_threads` in place of `auto`."""
    chosen = choose_threads(config, hidden, cores)
    return config.model_copy(
        update={
            "actor": config.actor.model_copy(update={"threads": chosen.actor}),
            "learner": config.learner.model_copy(update={"threads": chosen.learner}),
        }
    )


def threads_line(before: Config, after: Config) -> str:
    """Say what was decided; empty if nothing was `auto`."""
    sides = [("actor", before.actor.threads, after.actor.threads)]
    sides.append(("learner", before.learner.threads, after.learner.threads))
    return ", ".join(f"{name}.threads=auto is {now}" for name, given, now in sides if not given)
