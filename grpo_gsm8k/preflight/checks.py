"""What of a machine is in order for a configuration, what may hinder it, and what will. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from grpo_gsm8k.preflight.devices import GIB, recognise
from grpo_gsm8k.preflight.engine_memory import checkpoint_bytes, disk_bytes, shm_bytes
from grpo_gsm8k.preflight.memory import gib

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.machine import Machine
    from grpo_gsm8k.preflight.parameters import ModelShape

MIN_PYTHON = (3, 11)
BUSY_GIB = 1.0  # a GPU with more than this taken has somebody else's process on it


class Status(StrEnum):
    """Of one line."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at; `fix` is empty where it is in order."""

    name: str
    status: Status
    text: str
    fix: str = ""


def machine_lines(machine: Machine, config: Config) -> list[Line]:
    """Everything that does not depend on the model."""
    return [
        _python(machine),
        _package("torch", machine.torch, f"built for CUDA {machine.cuda}" if machine.cuda else "CPU build"),
        _package("vllm", machine.vllm, ""),
        *gpu_lines(machine, config),
        _memory(machine),
        _threads(machine, config),
        _hub(machine),
        _wandb(machine, config),
        _keys(machine, config),
    ]


def gpu_lines(machine: Machine, config: Config) -> list[Line]:
    """The GPUs that are there, and whether those that are asked for are among them."""
    wanted = _wanted(config)
    if machine.gpus is None:
        fix = "install the driver's nvidia-smi (in Docker: the capability `utility`) to have memory checked"
        return [Line("GPU", Status.WARNING, "there are some, and no nvidia-smi that tells their memory", fix)]
    lines = []
    for key, number in wanted:
        if number >= len(machine.gpus):
            text = f"{key}: cuda:{number} is asked for, {len(machine.gpus)} GPUs are visible"
            fix = f"set {key}=cpu or another device, use preset=one_gpu or preset=cpu_demo, or check the driver"
            lines.append(Line("GPU", Status.FAILURE, text, fix))
    for number, gpu in enumerate(machine.gpus):
        text = f"cuda:{number} {gpu.name}, {gpu.free_gib:.1f} of {gpu.memory_gib:.1f} GiB free, driver {machine.driver}"
        taken = gpu.memory_gib - gpu.free_gib > BUSY_GIB and number in [n for _, n in wanted]
        fix = "another process holds memory there: end it, or name another device" if taken else ""
        lines.append(Line("GPU", Status.WARNING if taken else Status.OK, text, fix))
    if machine.links:
        lines.append(Line("GPU link", Status.OK, machine.links))
    return lines or [Line("GPU", Status.OK, "none, and none is asked for")]


def space_lines(machine: Machine, config: Config, shape: ModelShape) -> list[Line]:
    """Room in /dev/shm and on the disk for what this model's run puts there."""
    return [_shm(machine, config, shm_bytes(shape, config)), _disk(machine, config, shape)]


def _shm(machine: Machine, config: Config, need: float) -> Line:
    if machine.shm_gib is None:
        return Line("shm", Status.FAILURE, f"shm={config.shm} does not exist", "set shm=FOLDER on a tmpfs")
    text = (
        f"{config.shm} has {machine.shm_free_gib:.2f} of {machine.shm_gib:.2f} GiB free, the weights need {gib(need)}"
    )
    if need <= machine.shm_free_gib * GIB:
        return Line("shm", Status.OK, text)
    size = f"{2 * need / GIB + 1:.0f}gb"
    return Line(
        "shm",
        Status.FAILURE,
        text,
        f"start the container with --shm-size={size} (compose: shm_size: {size}), or set shm=FOLDER on a larger tmpfs",
    )


def _disk(machine: Machine, config: Config, shape: ModelShape) -> Line:
    one, all_of_them = checkpoint_bytes(shape, config), disk_bytes(shape, config)
    text = f"{machine.disk_free_gib:.1f} GiB free, checkpoints need {gib(all_of_them)} ({gib(one)} each)"
    free = machine.disk_free_gib * GIB
    if free >= all_of_them:
        return Line("disk", Status.OK, text)
    fix = f"set artifacts=FOLDER on a larger disk, or lower {config.command}.keep_last"
    # With room for two a run lives until the first old one has gone; below that not even this.
    return Line("disk", Status.FAILURE if free < 2 * one else Status.WARNING, text, fix)


def _python(machine: Machine) -> Line:
    version = tuple(int(part) for part in machine.python.split(".")[:2])
    if version >= MIN_PYTHON:
        return Line("Python", Status.OK, machine.python)
    return Line("Python", Status.FAILURE, machine.python, "install Python 3.11 or newer, then: make setup")


def _package(name: str, version: str | None, besides: str) -> Line:
    if version is None:
        return Line(name, Status.FAILURE, "not installed", "make setup (ACCELERATOR=cuda on a GPU machine)")
    return Line(name, Status.OK, f"{version} {besides}".strip())


def _memory(machine: Machine) -> Line:
    return Line("RAM", Status.OK, f"{machine.ram_free_gib:.1f} of {machine.ram_gib:.1f} GiB free")


def _threads(machine: Machine, config: Config) -> Line:
    asked = config.learner.threads + config.actor.threads * config.actor.replicas
    text = f"{machine.threads} for {asked} that are asked for"
    if asked <= machine.threads:
        return Line("CPU threads", Status.OK, text)
    return Line("CPU threads", Status.WARNING, text, "lower learner.threads or actor.threads: they wait for each other")


def _hub(machine: Machine) -> Line:
    if machine.hub in ("reachable", "offline"):
        return Line("hub", Status.OK, machine.hub + (" (HF_HUB_OFFLINE)" if machine.hub == "offline" else ""))
    return Line("hub", Status.WARNING, machine.hub, "only cached and local models and data can be used")


def _wandb(machine: Machine, config: Config) -> Line:
    if machine.wandb_problem:
        return Line("W&B", Status.FAILURE, machine.wandb_problem, "set WANDB_API_KEY, or use wandb.mode=offline")
    return Line("W&B", Status.OK, f"wandb.mode={config.wandb.mode}" + (", logged in" * (config.wandb.mode == "online")))


def _keys(machine: Machine, config: Config) -> Line:
    needs = {config.traces.api_key_env: "command=traces", "HF_TOKEN": "command=push and gated models"}
    missing = [f"{name} ({purpose})" for name, purpose in needs.items() if name not in machine.keys]
    if not missing:
        return Line("keys", Status.OK, "all set")
    return Line("keys", Status.WARNING, f"not set: {', '.join(missing)}", "put them into .env if you use these")


def _wanted(config: Config) -> list[tuple[str, int]]:
    """Key and number of every GPU that is asked for."""
    found = []
    for key, device, count in (
        ("actor.device", config.actor.device, config.actor.replicas),
        ("learner.device", config.learner.device, 1),
    ):
        if device.startswith("cuda:"):
            first = int(device.removeprefix("cuda:"))
            found += [(key, first + i) for i in range(count)]
    return found


def known_gpu(machine: Machine, device: str) -> tuple[str, float] | None:
    """Name in the table, or the driver's, and memory in bytes of `cuda:N`; None where nothing is known."""
    number = int(device.removeprefix("cuda:"))
    if machine.gpus is None or number >= len(machine.gpus):
        return None
    gpu = machine.gpus[number]
    row = recognise(gpu.name, gpu.memory_gib)
    return row.name if row else gpu.name, gpu.memory_gib * GIB
