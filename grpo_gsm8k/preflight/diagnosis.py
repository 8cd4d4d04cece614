"""Everything that is known before a run: what the machine has, whether the run fits, what it will take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.preflight import cost, fit
from grpo_gsm8k.preflight.checks import Line, Status, known_gpu
from grpo_gsm8k.preflight.devices import GIB, TABLE, Device, by_name
from grpo_gsm8k.preflight.memory import gib

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.cost import Estimate
    from grpo_gsm8k.preflight.fit import Sides, Suggestion
    from grpo_gsm8k.preflight.machine import Machine
    from grpo_gsm8k.preflight.parameters import ModelShape

# A GPU that the table lacks: its memory is known, its speed is taken for that of an older one.
UNKNOWN = by_name("a40")


@dataclass(frozen=True, slots=True)
class Places:
    """The devices of actor and learner, and whether they are one and the same."""

    actor: Device
    learner: Device
    shared: bool
    known: bool  # False: no size is known, so nothing can be judged


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The verdict: `sides` as configured, `suggestion` where that does not fit and something near does."""

    shape: ModelShape
    places: Places
    sides: Sides
    suggestion: Suggestion | None
    estimate: Estimate


def diagnose(shape: ModelShape, config: Config, machine: Machine, updates: int) -> Diagnosis:
    """Judge the configured layout on the machine's devices, or on those of `doctor.gpu`. Raises UserError."""
    places = places_of(config, machine)
    actor_bytes, learner_bytes = places.actor.memory_gib * GIB, places.learner.memory_gib * GIB
    sides = fit.judge(shape, config, actor_bytes, learner_bytes, places.shared)
    suggestion = None
    if not sides.fits and places.known:
        suggestion = fit.nearest(shape, config, actor_bytes, learner_bytes, places.shared)
    made = cost.estimate(
        shape, config, updates, sides.actor, (places.actor, places.learner), places.shared, rent(config, places)
    )
    return Diagnosis(shape, places, sides, suggestion, made)


def places_of(config: Config, machine: Machine) -> Places:
    """Where both processes are, as devices with memory and rates."""
    actor, learner = config.actor.device, config.learner.device
    if config.doctor.gpu is not None:
        row = by_name(config.doctor.gpu)
        return Places(row, row, shared=actor == learner, known=True)
    found = (_device(actor, config.actor.threads, machine), _device(learner, config.learner.threads, machine))
    on_actor, on_learner = (device or UNKNOWN for device in found)
    return Places(on_actor, on_learner, shared=actor == learner, known=all(found))


def _device(name: str, threads: int, machine: Machine) -> Device | None:
    if name == "cpu":
        core = cost.CORE
        return Device("cpu", machine.ram_gib, core.bandwidth_gb_s * threads, core.bf16_tflops * threads, 0.0)
    known = known_gpu(machine, name)
    if known is None:
        return None
    row = next((device for device in TABLE if device.name == known[0]), None)
    rates = row or UNKNOWN
    price = row.usd_per_hour if row else 0.0
    return Device(known[0], known[1] / GIB, rates.bandwidth_gb_s, rates.bf16_tflops, price)


def rent(config: Config, places: Places) -> float | None:
    """USD an hour for all devices: `budget.usd_per_hour`, else the table's prices; None where no price is known."""
    if config.budget.usd_per_hour is not None:
        return config.budget.usd_per_hour
    devices = [places.actor] * config.actor.replicas + ([] if places.shared else [places.learner])
    prices = [device.usd_per_hour for device in devices if device.name != "cpu"]
    return sum(prices) if prices and all(prices) else None


def fit_lines(diagnosis: Diagnosis, config: Config) -> list[Line]:
    """Whether each side fits, with the nearest configuration that does where one does not."""
    if not diagnosis.places.known:
        return [Line("fit", Status.WARNING, "not judged: the memory of the GPUs is not known", "give doctor.gpu=NAME")]
    sides, places = diagnosis.sides, diagnosis.places
    beside = " beside the actor" if sides.shared else ""
    learner = f"needs {gib(sides.learner_need)}, {gib(max(0.0, sides.learner_room))} of {places.learner.name}{beside}"
    actor = (
        f"weights {gib(sides.actor.weights)}, {sides.actor.sequences} sequences of {config.actor.max_model_len} tokens "
        f"at once in {gib(sides.actor.cache)}, {gib(sides.actor_room)} of {places.actor.name}"
    )
    fix = "" if sides.learner_fits else _fix(diagnosis.suggestion)
    lines = [Line("learner", Status.OK if sides.learner_fits else Status.FAILURE, learner, fix)]
    fix = ""
    if not sides.actor_fits:
        fix = "raise actor.gpu_memory, lower actor.max_model_len, or take a larger device"
    return [*lines, Line("actor", Status.OK if sides.actor_fits else Status.FAILURE, actor, fix)]


def _fix(suggestion: Suggestion | None) -> str:
    if suggestion is None:
        return "nothing that is known here makes it fit: take a larger device or a smaller model"
    return "add " + " ".join(suggestion.overrides)


def refusal(lines: list[Line]) -> UserError | None:
    """One error out of all lines that failed, fixes included."""
    failures = [line for line in lines if line.status is Status.FAILURE]
    if not failures:
        return None
    text = "; ".join(f"{line.name}: {line.text}" + (f" ({line.fix})" if line.fix else "") for line in failures)
    return UserError(f"{text}. doctor.force=true starts all the same")
