"""`command=doctor`: report the machine, whether the run fits, its duration and cost, and the learner's fast paths."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.data.prepare import ensure
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.learner.architectures import check_trainable
from grpo_gsm8k.preflight import doctor_tables
from grpo_gsm8k.preflight.checks import CheckLine, Status, machine_lines, space_lines
from grpo_gsm8k.preflight.cpu_times import CpuTimes, measured_times
from grpo_gsm8k.preflight.diagnosis import Diagnosis, diagnose, fit_lines
from grpo_gsm8k.preflight.engine_memory import checkpoint_bytes, disk_bytes, shm_bytes
from grpo_gsm8k.preflight.fast_paths import FastPath, fast_paths
from grpo_gsm8k.preflight.machine import Machine, probe
from grpo_gsm8k.preflight.parameters import ModelShape, folder_of_config, from_folder, with_teacher_shape
from grpo_gsm8k.preflight.threads import with_threads
from grpo_gsm8k.preflight.workload import TYPICAL_PROMPT
from grpo_gsm8k.start_model import pin_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grpo_gsm8k.config import Config


def doctor(config: Config) -> int:
    """Print the report. Returns 1 if something prevents `command=policy_gradient` from running, else 0."""
    config = config.model_copy(update={"command": "policy_gradient"})
    shape, unknown, model, cpu = None, "", {}, None
    try:
        config = pin_model(config)
        folder = folder_of_config(config)
        check_trainable(folder, config.actor.max_model_len)
        shape = with_teacher_shape(from_folder(folder), config)
        model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except UserError as error:
        unknown = str(error)
    machine = probe(config)
    if shape is not None:
        cpu = measured_times(config, machine, shape, TYPICAL_PROMPT)
        config, line = with_threads(config, cpu, machine.threads)
        if line:
            print(line, file=sys.stderr)  # stdout may be JSON
    return report(machine, config, shape, unknown, model, cpu)


def report(
    machine: Machine,
    config: Config,
    shape: ModelShape | None,
    unknown: str = "",
    model: Mapping[str, Any] | None = None,
    cpu: CpuTimes | None = None,
) -> int:
    """Print the report on a probed machine; returns the exit code.

    `unknown` is the reason why there is no `shape`, `model` the content of the model's config.json, `cpu` what was
    predicted for a run on this CPU.
    """
    lines = machine_lines(machine, config)
    updates = _updates(config)
    if shape is not None:
        lines += space_lines(machine, config, shape, updates)
    if config.doctor.gpu is not None:
        lines = [_failure_as_warning(line) for line in lines if not line.name.startswith("GPU")]
    diagnosis = None
    if shape is None:
        lines.append(CheckLine("model", Status.FAILURE, unknown, "memory cannot be checked without the model"))
    else:
        diagnosis = diagnose(shape, config, machine, updates, cpu=cpu)
        lines += fit_lines(diagnosis, config)
    paths = fast_paths(config, model)
    if config.doctor.json_:
        print(json.dumps(as_json(lines, diagnosis, config, paths), indent=2))
    else:
        doctor_tables.show(lines, diagnosis, config, paths)
    failed = any(line.status is Status.FAILURE for line in lines)
    return int(failed and not config.doctor.force)


def _updates(config: Config) -> int:
    """Return the number of updates. Raises UserError for epochs of data that are not prepared: it loads none."""
    pg = config.policy_gradient
    if pg.epochs is None:
        return pg.updates_for(0)
    if not (config.artifacts / config.data.folder).exists():
        raise UserError(
            f"policy_gradient.epochs={pg.epochs:g} needs prepared data to count the updates: run command=data "
            "first, or set policy_gradient.updates=N policy_gradient.epochs=null"
        )
    return pg.updates_for(ensure(config.data, config.artifacts, config.prompt.locale).train)


def _failure_as_warning(line: CheckLine) -> CheckLine:
    """Downgrade a failure of this machine: `doctor.gpu` asks about another one."""
    return replace(line, status=Status.WARNING) if line.status is Status.FAILURE else line


def as_json(
    lines: list[CheckLine], diagnosis: Diagnosis | None, config: Config, paths: list[FastPath]
) -> dict[str, Any]:
    """Return the whole report as plain values; memory in bytes."""
    values: dict[str, Any] = {
        "ok": all(line.status is not Status.FAILURE for line in lines),
        "checks": [asdict(line) for line in lines],
        "fast_paths": [asdict(path) for path in paths],
    }
    if diagnosis is None:
        return values
    sides, suggestion = diagnosis.sides, diagnosis.suggestion
    return values | {
        "model": asdict(diagnosis.shape),
        "devices": asdict(diagnosis.places),
        "fits": sides.fits if diagnosis.places.known else None,
        "learner": {**asdict(sides.learner), "peak": sides.learner.peak, "need": sides.learner_need}
        | {"room": sides.learner_room},
        "actor": {**asdict(sides.actor), "need": sides.actor_need, "room": sides.actor_room},
        "shm": shm_bytes(diagnosis.shape, config),
        "checkpoint": checkpoint_bytes(diagnosis.shape, config),
        "disk": disk_bytes(diagnosis.shape, config, diagnosis.estimate.updates),
        "nearest_that_fits": None if suggestion is None else list(suggestion.overrides),
        "estimate": asdict(diagnosis.estimate),
    }
