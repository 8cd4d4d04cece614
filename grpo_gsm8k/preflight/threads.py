"""How many CPU threads actor and learner get with `threads: auto`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from grpo_gsm8k.terminal.durations import duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpo_gsm8k.config import Config

ACTOR_OF_A_GPU = 1  # the engine's scheduler is one Python thread
LEARNER_OF_A_GPU = 4  # casts and checksums of published weights
WORTH_IT = 0.95  # of the time: what further threads must save, as small operations on many threads wait for each other


class UpdateTimes(Protocol):
    """Predicted seconds of one update's two parts, by number of threads."""

    def generating_s(self, threads: int) -> float:
        """Return the seconds of one engine for its part of the completions."""

    def learning_s(self, threads: int) -> float:
        """Return the seconds of the learner."""


@dataclass(frozen=True, slots=True)
class Threads:
    """CPU threads of one engine and of one rank of the learner, and why."""

    actor: int
    learner: int
    why: str = ""


def choose_threads(config: Config, times: UpdateTimes | None, cores: int) -> Threads:
    """Return the threads of both processes; numbers that are set stay as they are.

    Processes that share `cores` either work at once, each with a part of them (more threads than cores wait for each
    other at the end of every product), or take turns with all of them, as `policy_gradient.max_staleness=0` makes them.
    Otherwise the parts are those with the shortest predicted update. Without predictions cores are split evenly. The
    learner's part is divided among its ranks. With `deterministic=true` predictions do not count: they rest on measured
    speeds, which differ from run to run, and another number of threads adds in another order.
    """
    if config.deterministic:
        times = None
    chosen = _shared_cpu(config, times, cores) if _both_on_cpu(config) else _beside_a_gpu(config, cores)
    pins = config.actor.cores, config.learner.cores
    actor, learner = (min(n, len(pin) or n) for n, pin in zip((chosen.actor, chosen.learner), pins, strict=True))
    each = learner // len(config.learner.rank_devices) if config.learner.device == "cpu" else learner
    return Threads(config.actor.threads or actor, config.learner.threads or max(1, each), chosen.why)


def _both_on_cpu(config: Config) -> bool:
    return config.actor.device == config.learner.device == "cpu"


def _beside_a_gpu(config: Config, cores: int) -> Threads:
    engines = config.engines_here
    actor, learner = ACTOR_OF_A_GPU, max(1, cores - engines)
    if config.learner.device != "cpu":
        learner = min(LEARNER_OF_A_GPU, cores)
        actor = actor if config.actor.device != "cpu" else max(1, cores // engines)
    return Threads(actor, learner)


def _shared_cpu(config: Config, times: UpdateTimes | None, cores: int) -> Threads:
    """Choose for two processes on the CPU."""
    engines = config.engines_here
    together = Threads(max(1, cores // engines), cores)
    if config.command == "sft":
        learner = cores if times is None else _fewest(times.learning_s, cores)
        return Threads(together.actor, learner, "the engine works for validations only")
    splits = _splits(config, cores)
    if times is None:
        even = splits[(len(splits) - 1) // 2]
        return together if config.policy_gradient.max_staleness == 0 else even
    best = min(splits, key=lambda split: max(times.generating_s(split.actor), times.learning_s(split.learner)))
    turns = Threads(_fewest(times.generating_s, together.actor), _fewest(times.learning_s, cores))
    parts = times.generating_s(turns.actor), times.learning_s(turns.learner)
    both = max(times.generating_s(best.actor), times.learning_s(best.learner))
    if cores <= engines:
        return Threads(1, 1, "no core is free for the learner")
    turn_s, both_s = duration(sum(parts)), duration(both)
    if config.policy_gradient.max_staleness == 0:
        text = f"taking turns, predicted {turn_s} per update ({duration(parts[0])} to generate)"
        return Threads(turns.actor, turns.learner, f"{text}; at once, with max_staleness above 0, {both_s}")
    text = f"both at once, predicted {both_s} per update; taking turns, with max_staleness=0, {turn_s}"
    return Threads(best.actor, best.learner, text)


def _splits(config: Config, cores: int) -> list[Threads]:
    """Return all ways to give each engine and the learner at least one core of their own, fewest for the engine first.

    A number that is set narrows the choice. With too few cores, each process gets one thread.
    """
    engines = config.engines_here
    most = max(1, (cores - 1) // engines)
    actors = [config.actor.threads] if config.actor.threads else range(1, most + 1)
    return [Threads(n, config.learner.all_threads or max(1, cores - engines * n)) for n in actors]


def _fewest(seconds: Callable[[int], float], most: int) -> int:
    """Return the smallest number of threads that is nearly as fast as the fastest, at most `most`."""
    best = min(seconds(n) for n in range(1, most + 1))
    return next(n for n in range(1, most + 1) if WORTH_IT * seconds(n) <= best)


def with_threads(config: Config, times: UpdateTimes | None, cores: int) -> tuple[Config, str]:
    """Return the configuration with numbers in place of `auto`, and a line that says which and why.

    The line is empty if nothing was `auto`.
    """
    chosen = choose_threads(config, times, cores)
    sides = [("actor", config.actor.threads, chosen.actor), ("learner", config.learner.threads, chosen.learner)]
    decided = config.model_copy(
        update={
            "actor": config.actor.model_copy(update={"threads": chosen.actor}),
            "learner": config.learner.model_copy(update={"threads": chosen.learner}),
        }
    )
    line = ", ".join(f"{name}.threads=auto is {now}" for name, given, now in sides if not given)
    return decided, f"{line}: {chosen.why}" if line and chosen.why else line
