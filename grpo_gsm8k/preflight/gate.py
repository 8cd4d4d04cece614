"""Check at the start of every training command: refuse a run that cannot work, and print what it will take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UnknownShapeError, UserError
from grpo_gsm8k.preflight.checks import CheckLine, Status, gpu_lines, precision_lines, space_lines
from grpo_gsm8k.preflight.cpu_times import measured_times
from grpo_gsm8k.preflight.diagnosis import Diagnosis, diagnose, fit_lines, refusal
from grpo_gsm8k.preflight.machine import probe
from grpo_gsm8k.preflight.memory import gib
from grpo_gsm8k.preflight.parameters import from_weights, with_teacher_shape
from grpo_gsm8k.preflight.prompt_lengths import mean_prompt
from grpo_gsm8k.preflight.threads import with_threads
from grpo_gsm8k.preflight.workload import TYPICAL_PROMPT
from grpo_gsm8k.terminal.durations import dollars, duration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.grading.problem import Problem
    from grpo_gsm8k.preflight.cost import Estimate
    from grpo_gsm8k.preflight.cpu_times import CpuTimes
    from grpo_gsm8k.preflight.machine import Machine
    from grpo_gsm8k.preflight.parameters import ModelShape


def inspect_machine(config: Config) -> Machine:
    """Probe the machine. Raises UserError if a configured GPU is missing, before any model is downloaded."""
    machine = probe(config, thorough=False)
    _refuse(gpu_lines(machine, config), config)
    return machine


def predict(config: Config, machine: Machine, model_folder: Path, problems: Sequence[Problem]) -> CpuTimes | None:
    """Return the predicted times of updates on this machine's CPU; None for a model whose shape is unknown.

    `problems` are those to train on; the first ones tell how long prompts are.
    """
    try:
        shape = with_teacher_shape(from_weights(model_folder), config)
    except UnknownShapeError:
        return None
    return measured_times(config, machine, shape, mean_prompt(config.prompt, model_folder, problems))


def decide_threads(config: Config, machine: Machine, cpu: CpuTimes | None) -> Config:
    """Return the configuration with numbers in place of `threads: auto`, and print them with the reason."""
    decided, line = with_threads(config, cpu, machine.threads)
    if line:
        print(f"preflight: {line}", flush=True)
    return decided


def check(
    config: Config,
    machine: Machine,
    model_folder: Path,
    updates: int,
    problems: Sequence[Problem] = (),
    cpu: CpuTimes | None = None,
) -> Estimate | None:
    """Print two lines and return the estimate; None for a model whose memory cannot be computed.

    `problems` and `cpu` as for `predict`.

    Raises UserError if the run cannot work, unless `doctor.force`. Imports neither torch nor transformers.
    """
    try:
        shape = with_teacher_shape(from_weights(model_folder), config)
    except UnknownShapeError as error:
        print(f"preflight: memory not checked: {error}")
        _require_price(config, config.budget.usd_per_hour)
        return None
    prompt = mean_prompt(config.prompt, model_folder, problems)
    diagnosis = check_fit(machine, config, shape, updates, prompt, cpu)
    for text in summary(diagnosis):
        print(f"preflight: {text}", flush=True)
    return diagnosis.estimate


def check_fit(
    machine: Machine,
    config: Config,
    shape: ModelShape,
    updates: int,
    prompt: float = TYPICAL_PROMPT,
    cpu: CpuTimes | None = None,
) -> Diagnosis:
    """Diagnose the run and print warnings. Raises UserError for failures unless `doctor.force` is set."""
    diagnosis = diagnose(shape, config, machine, updates, prompt, cpu)
    lines = [*gpu_lines(machine, config), *precision_lines(machine, config)]
    lines += [*space_lines(machine, config, shape, updates), *fit_lines(diagnosis, config)]
    _refuse(lines, config)
    for line in lines:
        if line.status is not Status.OK:
            print(f"preflight: {line.status}: {line.name}: {line.text}" + (f" ({line.fix})" if line.fix else ""))
    _require_price(config, diagnosis.estimate.usd_per_hour)
    return diagnosis


def _refuse(lines: list[CheckLine], config: Config) -> None:
    error = refusal(lines)
    if error is not None and not config.doctor.force:
        raise error


def _require_price(config: Config, usd_per_hour: float | None) -> None:
    if config.budget.max_usd is not None and usd_per_hour is None:
        raise UserError(
            "budget.max_usd: the price of these devices is unknown: set budget.usd_per_hour, or use budget.max_hours"
        )


def summary(diagnosis: Diagnosis) -> list[str]:
    """Return a line on memory and concurrent sequences, and one on duration and cost."""
    sides, places, made = diagnosis.sides, diagnosis.places, diagnosis.estimate
    memory = f"learner {gib(sides.learner_need)} of {gib(max(0.0, sides.learner_room))} on {places.learner.name}"
    at_once = f"{sides.actor.sequences} sequences at once on {places.actor.name}"
    price = "" if made.usd is None else f", about {dollars(made.usd)}"
    took = f"{made.updates} updates of about {duration(made.step_s)}: {duration(3600 * made.hours)}{price}"
    return [f"{memory}; {at_once}", took]
