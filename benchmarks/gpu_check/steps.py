"""The list of steps, in the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its number, what it checks, its module, and its limits.

    `limit_s` is the time after which it counts as failed. It is generous, because a first start compiles kernels; the
    ten minutes of the whole check hold for the sum. `needs_engine`: the step needs vLLM.
    """

    number: int
    title: str
    module: str
    limit_s: float
    needs_engine: bool


STEPS: tuple[Step, ...] = (
    Step(1, "driver, torch, compiler, links", "machine", 60, False),
    Step(2, "attention: kernel, shapes, exactness", "attention", 90, False),
    Step(3, "engine: swaps under running requests, eager", "engine_eager", 150, True),
    Step(4, "engine: compiled, async scheduling, adapters", "engine_compiled", 240, True),
    Step(5, "weights that were not received are noticed", "fault", 120, True),
    Step(6, "learner: memory, speed, gap to the engine", "learner", 120, False),
    Step(7, "publishing and loading, seconds by part", "publishing", 150, False),
    Step(8, "out of memory: the token budget is halved", "out_of_memory", 60, False),
    Step(9, "runs on one device, an actor is killed", "runs", 240, True),
    Step(10, "shares of a regression suite", "suite", 180, True),
    Step(11, "two GPUs, and replicas that would collide", "two_gpus", 150, True),
    Step(12, "qlora and lora: gap, memory over ten loads", "adapters", 180, True),
    Step(13, "output head: chunked, and Liger's", "output_head", 60, False),
    Step(14, "an engine that sleeps between updates", "sleeping", 180, True),
)


def chosen(only: str | None) -> list[Step]:
    """Return the steps whose numbers `only` lists, as in `2,6`; None: all. Raises ValueError for an unknown number."""
    if only is None:
        return list(STEPS)
    known = {str(step.number): step for step in STEPS}
    names = [word.strip() for word in only.split(",") if word.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"--only {only}: name steps from 1 to {len(STEPS)}, as in --only 2,6")
    return [known[name] for name in sorted(set(names), key=int)]
