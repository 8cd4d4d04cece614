"""Checks of a machine against a configuration. Pure functions that return lines: ok, warning or failure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from grpo_gsm8k.config.gpu_shares import CUDA_CONTEXT, suite_share
from grpo_gsm8k.preflight.devices import GIB, recognize
from grpo_gsm8k.preflight.engine_memory import checkpoint_bytes, disk_bytes, shm_bytes
from grpo_gsm8k.preflight.host_copies import host_copies
from grpo_gsm8k.preflight.memory import gib

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.preflight.machine import Gpu, Machine
    from grpo_gsm8k.preflight.parameters import ModelShape

MIN_PYTHON = (3, 11)
# Oldest driver for each CUDA version, which the libraries of its torch need (CUDA's release notes, table 3).
MIN_DRIVER = {12: 525, 13: 580}
PROCESSES_ON_HOST = 2.0 * 2**30  # both processes with their libraries imported, as on a CPU; CUDA's own comes on top
BUSY_GIB = 1.0  # an idle GPU has less than this in use, so more means another process


class Status(StrEnum):
    """Result of one check."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One checked item; `fix` is empty if it is ok."""

    name: str
    status: Status
    text: str
    fix: str = ""


def machine_lines(machine: Machine, config: Config) -> list[CheckLine]:
    """Check everything that does not depend on the model."""
    return [
        _python(machine),
        _package("torch", machine.torch, f"built for CUDA {machine.cuda}" if machine.cuda else "CPU build"),
        _package("vllm", machine.vllm, ""),
        *gpu_lines(machine, config),
        _memory(machine),
        _threads(machine, config),
        *precision_lines(machine, config),
        _hub(machine),
        _wandb(machine, config),
        _keys(machine, config),
    ]


def gpu_lines(machine: Machine, config: Config) -> list[CheckLine]:
    """Check that the configured GPUs exist, that the driver and their free memory suffice, and list all GPUs."""
    wanted = _configured_gpus(config)
    if machine.gpus is None:
        fix = "install the driver's nvidia-smi (in Docker: the capability `utility`) to have memory checked"
        text = "GPUs present, but nvidia-smi is missing, so their memory is unknown"
        return [CheckLine("GPU", Status.WARNING, text, fix)]
    lines = _driver(machine) if wanted else []
    for key, number in wanted:
        if number >= len(machine.gpus):
            among = "" if machine.visible is None else f" with CUDA_VISIBLE_DEVICES={machine.visible}"
            text = f"{key}: cuda:{number} is configured, but only {len(machine.gpus)} GPUs are visible{among}"
            fix = f"set {key}={'null' if key == 'learner.devices' else 'cpu or another device'}, use preset=one_gpu or "
            fix += "preset=cpu_demo, or check the driver"
            lines.append(CheckLine("GPU", Status.FAILURE, text, fix))
    lines += _mig(machine, config) if wanted else []
    lines += [_gpu(number, gpu, machine, config) for number, gpu in enumerate(machine.gpus)]
    if machine.links:
        lines.append(CheckLine("GPU link", Status.OK, machine.links))
    return lines or [CheckLine("GPU", Status.OK, "none, and none is configured")]


def _driver(machine: Machine) -> list[CheckLine]:
    """Refuse a driver that is too old for torch's CUDA: it would fail only when the first tensor reaches a GPU."""
    if machine.driver is None or machine.cuda is None:
        return []
    major = int(machine.cuda.split(".")[0])
    if int(machine.driver.split(".")[0]) >= MIN_DRIVER.get(major, 0):
        return []
    text = f"{machine.driver} is too old for torch's CUDA {machine.cuda}, which needs {MIN_DRIVER[major]} or newer"
    return [CheckLine("GPU driver", Status.FAILURE, text, "update the host's NVIDIA driver, or rent another host")]


def _mig(machine: Machine, config: Config) -> list[CheckLine]:
    """Refuse MIG devices that the processes could not reach: each sees only the first one that is visible to it."""
    gpus = machine.gpus or ()
    if len(gpus) < 2 or not any(gpu.mig for gpu in gpus):
        return []
    if machine.visible is None:
        text = f"{len(gpus)} GPUs and MIG devices are visible, of which CUDA would choose one"
        fix = "set CUDA_VISIBLE_DEVICES=MIG-..., one UUID of nvidia-smi -L for each device, separated by commas"
        return [CheckLine("GPU", Status.FAILURE, text, fix)]
    if len(config.learner.rank_devices) > 1:
        text, fix = "learner.devices: a process sees only the first of several MIG devices", "set learner.devices=null"
        return [CheckLine("GPU", Status.FAILURE, text, fix)]
    if config.learner.device in ("cpu", "cuda:0"):
        return []
    text = f"learner.device={config.learner.device}: a process sees only the first of several MIG devices"
    fix = "set learner.device=cuda:0 actor.device=cuda:1"
    return [CheckLine("GPU", Status.FAILURE, text, fix)]


def _gpu(number: int, gpu: Gpu, machine: Machine, config: Config) -> CheckLine:
    """List one GPU; too little free memory for an engine is a failure, as it is for vLLM."""
    text = f"cuda:{number} {gpu.name}, {gpu.free_gib:.1f} of {gpu.memory_gib:.1f} GiB free, driver {machine.driver}"
    keys = [key for key, wanted in _configured_gpus(config) if wanted == number]
    share, possible = _engine_share(number, config), gpu.free_gib - CUDA_CONTEXT / GIB
    if "actor.device" in keys and gpu.memory_gib and share * gpu.memory_gib > possible:
        lower = math.floor(100 * (possible / gpu.memory_gib - share + config.actor.gpu_memory)) / 100
        fix = "end the process that uses its memory" + (f", or set actor.gpu_memory={lower:g}" if lower > 0 else "")
        return CheckLine("GPU", Status.FAILURE, f"{text}, but the engine needs {share * gpu.memory_gib:.1f} GiB", fix)
    if keys and gpu.memory_gib - gpu.free_gib > BUSY_GIB:
        fix = "another process uses its memory: end it, or configure another device"
        return CheckLine("GPU", Status.WARNING, text, fix)
    return CheckLine("GPU", Status.OK, text)


def _engine_share(number: int, config: Config) -> float:
    """Return the fraction of `cuda:<number>` that engines take; the regression suite's is beside the first actor's."""
    first = config.actor.device == f"cuda:{number}"
    return config.actor.gpu_memory + (suite_share(config) if first else 0.0)


def precision_lines(machine: Machine, config: Config) -> list[CheckLine]:
    """Say which precision the processes on a CPU compute in, and why; warn of bfloat16 that the CPU emulates."""
    sides = [
        ("actor", config.actor.device, config.actor.dtype),
        ("learner", config.learner.device, config.learner.dtype),
    ]
    on_cpu = {name: dtype for name, device, dtype in sides if device == "cpu"}
    if not on_cpu:
        return []
    has = "has" if machine.cpu_bf16 else "has no"
    text = ", ".join(f"{name} {dtype}" for name, dtype in on_cpu.items()) + f"; the CPU {has} bfloat16 instructions"
    emulated = [] if machine.cpu_bf16 else [name for name, dtype in on_cpu.items() if dtype == "bfloat16"]
    if not emulated:
        return [CheckLine("precision", Status.OK, text)]
    fix = (
        f"it is emulated, several times slower than float32: set {' '.join(f'{name}.dtype=auto' for name in emulated)}"
    )
    return [CheckLine("precision", Status.WARNING, text, fix)]


def space_lines(machine: Machine, config: Config, shape: ModelShape, updates: int) -> list[CheckLine]:
    """Check the free space in /dev/shm, on the disk and in the host's memory against this model's run."""
    lines = [_shm(machine, config, shm_bytes(shape, config)), _disk(machine, config, shape, updates)]
    return lines if config.learner.device == "cpu" else [*lines, _host(machine, config, shape)]


def known_gpu(machine: Machine, device: str) -> tuple[str, float] | None:
    """Return the name (the table's, else the driver's) and memory in bytes of `cuda:N`; None if unknown."""
    number = int(device.removeprefix("cuda:"))
    if machine.gpus is None or number >= len(machine.gpus) or not machine.gpus[number].memory_gib:
        return None
    gpu = machine.gpus[number]
    row = recognize(gpu.name, gpu.memory_gib)
    return row.name if row else gpu.name, gpu.memory_gib * GIB


def _shm(machine: Machine, config: Config, need: float) -> CheckLine:
    if machine.shm_gib is None:
        return CheckLine("shm", Status.FAILURE, f"shm={config.shm} does not exist", "set shm=FOLDER on a tmpfs")
    text = (
        f"{config.shm} has {machine.shm_free_gib:.2f} of {machine.shm_gib:.2f} GiB free, the weights need {gib(need)}"
    )
    if need <= machine.shm_free_gib * GIB:
        return CheckLine("shm", Status.OK, text)
    size = f"{math.ceil(need / GIB) + 2}gb"
    return CheckLine(
        "shm",
        Status.FAILURE,
        text,
        f"start the container with --shm-size={size} (compose: shm_size: {size}), or set shm=FOLDER on a larger tmpfs",
    )


def _disk(machine: Machine, config: Config, shape: ModelShape, updates: int) -> CheckLine:
    one, all_of_them = checkpoint_bytes(shape, config), disk_bytes(shape, config, updates)
    text = f"{machine.disk_free_gib:.1f} GiB free, checkpoints need {gib(all_of_them)} ({gib(one)} each)"
    free = machine.disk_free_gib * GIB
    if free >= all_of_them:
        return CheckLine("disk", Status.OK, text)
    fix = f"set artifacts=FOLDER on a larger disk, or lower {config.command}.keep_last"
    # A new checkpoint is written before the previous one is deleted, so a run needs room for two at the very least.
    return CheckLine("disk", Status.FAILURE if free < 2 * one else Status.WARNING, text, fix)


def _host(machine: Machine, config: Config, shape: ModelShape) -> CheckLine:
    """Check the host's memory beside a learner on a GPU; one on the CPU is checked with all it needs."""
    copies, room = host_copies(shape, config), machine.ram_gib * GIB
    published = copies.published + copies.sleeping + shm_bytes(shape, config)
    state = copies.saved_state + copies.offloaded
    need = published + state + PROCESSES_ON_HOST  # /dev/shm is memory too
    text = (
        f"{machine.ram_free_gib:.1f} of {machine.ram_gib:.1f} GiB free, a run needs {gib(need)}: published weights "
        f"{gib(published)}, optimizer state {gib(state)}"
    )
    if need > room:
        fix = "use a machine with more memory, or set learner.optimizer=adamw_8bit or learner=lora"
        return CheckLine("host memory", Status.FAILURE, text, fix)
    if need + copies.saved_weights > machine.ram_free_gib * GIB:
        return CheckLine("host memory", Status.WARNING, text, "without room, training waits for each checkpoint")
    return CheckLine("host memory", Status.OK, text)


def _python(machine: Machine) -> CheckLine:
    version = tuple(int(part) for part in machine.python.split(".")[:2])
    if version >= MIN_PYTHON:
        return CheckLine("Python", Status.OK, machine.python)
    return CheckLine("Python", Status.FAILURE, machine.python, "install Python 3.11 or newer, then: make setup")


def _package(name: str, version: str | None, build: str) -> CheckLine:
    if version is None:
        return CheckLine(name, Status.FAILURE, "not installed", "make setup (ACCELERATOR=cuda on a GPU machine)")
    return CheckLine(name, Status.OK, f"{version} {build}".strip())


def _memory(machine: Machine) -> CheckLine:
    return CheckLine("RAM", Status.OK, f"{machine.ram_free_gib:.1f} of {machine.ram_gib:.1f} GiB free")


def _threads(machine: Machine, config: Config) -> CheckLine:
    sides = config.learner.all_threads, config.actor.threads * config.engines_here
    taking_turns = config.command == "sft" or config.policy_gradient.max_staleness == 0
    configured = max(sides) if taking_turns else sum(sides)
    text = f"{machine.threads} cores for {configured} threads that work at once"
    if configured <= machine.threads:
        return CheckLine("CPU threads", Status.OK, text)
    fix = "lower learner.threads or actor.threads: more threads than cores slow each other down"
    return CheckLine("CPU threads", Status.WARNING, text, fix)


def _hub(machine: Machine) -> CheckLine:
    if machine.hub in ("reachable", "offline"):
        return CheckLine("hub", Status.OK, machine.hub + (" (HF_HUB_OFFLINE)" if machine.hub == "offline" else ""))
    return CheckLine("hub", Status.WARNING, machine.hub, "only cached and local models and data can be used")


def _wandb(machine: Machine, config: Config) -> CheckLine:
    if machine.wandb_problem:
        fix = "set WANDB_API_KEY, or use wandb.mode=offline"
        if "tensorboard" in machine.wandb_problem:
            fix = "install it, or leave tensorboard out of tracker"
        return CheckLine("W&B", Status.FAILURE, machine.wandb_problem, fix)
    login = ", logged in" * (config.wandb.mode == "online")
    mode = config.wandb.mode or "from WANDB_MODE, else offline"
    return CheckLine("W&B", Status.OK, f"tracker=[{','.join(config.tracker)}], wandb.mode: {mode}{login}")


def _keys(machine: Machine, config: Config) -> CheckLine:
    needs = {config.traces.api_key_env: "command=traces", "HF_TOKEN": "command=push and gated models"}
    missing = [f"{name} ({purpose})" for name, purpose in needs.items() if name not in machine.keys]
    if not missing:
        return CheckLine("keys", Status.OK, "all set")
    return CheckLine("keys", Status.WARNING, f"not set: {', '.join(missing)}", "put them into .env if you use these")


def _configured_gpus(config: Config) -> list[tuple[str, int]]:
    """Return config key and number of every configured GPU."""
    found = []
    key = "learner.device" if config.learner.devices is None else "learner.devices"
    engines = ("actor.device", config.actor.device, config.engines_here * config.actor.tensor_parallel)
    for key, device, count in (engines, *((key, device, 1) for device in config.learner.rank_devices)):
        if device.startswith("cuda:"):
            first = int(device.removeprefix("cuda:"))
            found += [(key, first + i) for i in range(count)]
    return found
