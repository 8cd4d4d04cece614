"""Diagnosis of a configuration before its run: devices, memory, duration and cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.preflight import cost, fit
from grpo_gsm8k.preflight.checks import CheckLine, Status, known_gpu
from grpo_gsm8k.preflight.devices import GIB, TABLE, Device, by_name
from grpo_gsm8k.preflight.memory import gib
from grpo_gsm8k.preflight.workload import TYPICAL_PROMPT

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.cost import Estimate
    from grpo_gsm8k.preflight.cpu_times import CpuTimes
    from grpo_gsm8k.preflight.fit import Sides, Suggestion
    from grpo_gsm8k.preflight.machine import Machine
    from grpo_gsm8k.preflight.parameters import ModelShape

# Rates assumed for a GPU that the table lacks; its memory is known from the driver.
UNKNOWN = by_name("a40")


@dataclass(frozen=True, slots=True)
class Places:
    """Devices of actor and learner; of a learner of several GPUs, the smallest. `shared`: both are the same device."""

    actor: Device
    learner: Device
    shared: bool
    known: bool  # False: the memory of a device is unknown, so whether the run fits cannot be checked


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The configured run's fit and cost; `suggestion` only if it does not fit and a similar configuration does.

    It may also be one that fits and gives the engine more sequences at once.
    """

    shape: ModelShape
    places: Places
    sides: Sides
    suggestion: Suggestion | None
    estimate: Estimate


def diagnose(
    shape: ModelShape,
    config: Config,
    machine: Machine,
    updates: int,
    prompt: float = TYPICAL_PROMPT,
    cpu: CpuTimes | None = None,
) -> Diagnosis:
    """Evaluate the configuration on the machine's devices, or on `doctor.gpu`. Raises UserError for an unknown one.

    `prompt` is the mean length of a prompt in tokens, `cpu` what was predicted from measured rates, if they were.
    """
    places = places_of(config, machine)
    actor_bytes, learner_bytes = places.actor.memory_gib * GIB, places.learner.memory_gib * GIB
    sides = fit.evaluate_fit(shape, config, actor_bytes, learner_bytes, places.shared)
    suggestion = None
    if not (sides.fits and sides.roomy) and places.known:
        suggestion = fit.nearest(shape, config, actor_bytes, learner_bytes, places.shared)
        if sides.fits and suggestion is not None and not suggestion.sides.roomy:
            suggestion = None
    price, devices = hourly_price(config, places), (places.actor, places.learner)
    slowed = places.shared and not _side_by_side(config, machine)
    made = cost.estimate(shape, config, updates, sides.actor, devices, slowed, price, prompt, cpu)
    return Diagnosis(shape, places, sides, suggestion, made)


def _side_by_side(config: Config, machine: Machine) -> bool:
    """Whether both processes are on the CPU with cores enough for the threads of both."""
    return config.actor.device == config.learner.device == "cpu" and config.all_threads <= machine.threads


def places_of(config: Config, machine: Machine) -> Places:
    """Return the devices of both processes with their memory and rates."""
    actor, learner = config.actor.device, config.learner.device
    if config.doctor.gpu is not None:
        row = by_name(config.doctor.gpu)
        return Places(row, row, shared=actor == learner, known=True)
    on_actor = _device(actor, config.actor.threads, machine)
    ranks = [_device(name, config.learner.all_threads, machine) for name in config.learner.rank_devices]
    smallest = min((device or UNKNOWN for device in ranks), key=lambda device: device.memory_gib)
    return Places(on_actor or UNKNOWN, smallest, shared=actor == learner, known=on_actor is not None and all(ranks))


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


def hourly_price(config: Config, places: Places) -> float | None:
    """Return USD per hour for all devices: `budget.usd_per_hour`, else the table's prices; None if unknown."""
    if config.budget.usd_per_hour is not None:
        return config.budget.usd_per_hour
    learners = [] if places.shared else [places.learner] * len(config.learner.rank_devices)
    devices = [places.actor] * (config.actor.replicas * config.actor.tensor_parallel) + learners
    prices = [device.usd_per_hour for device in devices if device.name != "cpu"]
    return sum(prices) if prices and all(prices) else None


def fit_lines(diagnosis: Diagnosis, config: Config) -> list[CheckLine]:
    """Report whether each process fits, with the nearest configuration that does as the fix."""
    if not diagnosis.places.known:
        text = "not checked: the memory of the GPUs is unknown"
        return [CheckLine("fit", Status.WARNING, text, "set doctor.gpu=NAME")]
    sides, places = diagnosis.sides, diagnosis.places
    shared = " next to the actor" if sides.shared else ""
    room = f"{gib(max(0.0, sides.learner_room))} of {places.learner.name}{shared}"
    learner = f"needs {gib(sides.learner_need)}{_for_ranks(config)}, has {room}"
    if sides.learner_room_awake is not None:
        lasting, room = gib(sides.learner.lasting), gib(max(0.0, sides.learner_room_awake))
        learner += f" while it sleeps; {lasting} of {room} while it is awake"
    fix = "" if sides.learner_fits else _fix(diagnosis.suggestion)
    lines = [
        CheckLine("learner", Status.OK if sides.learner_fits else Status.FAILURE, learner, fix),
        _actor_line(diagnosis, config),
    ]
    if sides.suite is not None:
        text = f"weights {gib(sides.suite.weights)}, cache {gib(sides.suite.cache)} beside the actor"
        fix = "" if sides.suite_fits else "raise policy_gradient.regression_suite.gpu_memory and lower actor.gpu_memory"
        lines.append(CheckLine("suite", Status.OK if sides.suite_fits else Status.FAILURE, text, fix))
    return lines


def _for_ranks(config: Config) -> str:
    """Say whose memory it is, if the learner has several ranks."""
    ranks = len(config.learner.rank_devices)
    if ranks == 1:
        return ""
    return f" for all {ranks} ranks" if config.learner.device == "cpu" else f" for each of {ranks} ranks"


def _actor_line(diagnosis: Diagnosis, config: Config) -> CheckLine:
    """Report the actor's memory; an engine with room for only a few sequences works, but slowly."""
    sides, actor = diagnosis.sides, diagnosis.sides.actor
    text = (
        f"weights {gib(actor.weights)}, cache {gib(actor.cache)} for {actor.sequences} sequences of "
        f"{config.actor.max_model_len} tokens, has {gib(sides.actor_room)} of {diagnosis.places.actor.name}"
    )
    if sides.actor_fits and sides.roomy:
        return CheckLine("actor", Status.OK, text)
    if config.actor.device == "cpu":
        fix = "raise actor.kv_cache_mb, or lower actor.max_model_len"
    elif diagnosis.suggestion is not None:
        fix = _fix(diagnosis.suggestion)
    else:
        fix = "raise actor.gpu_memory, lower actor.max_model_len, or use a larger device"
    return CheckLine("actor", Status.WARNING if sides.actor_fits else Status.FAILURE, text, fix)


def _fix(suggestion: Suggestion | None) -> str:
    if suggestion is None:
        return "no known change makes it fit: use a larger device or a smaller model"
    return "add " + " ".join(suggestion.overrides)


def refusal(lines: list[CheckLine]) -> UserError | None:
    """Combine all failed lines and their fixes into one error; None if no line failed."""
    failures = [line for line in lines if line.status is Status.FAILURE]
    if not failures:
        return None
    text = "; ".join(f"{line.name}: {line.text}" + (f" ({line.fix})" if line.fix else "") for line in failures)
    return UserError(f"{text}. doctor.force=true starts anyway")
