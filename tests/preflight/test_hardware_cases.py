"""Seed documents' models on the GPUs that they name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cli import load_config
from grpo_gsm8k.config import Config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.models import EMBEDDED_TINY
from grpo_gsm8k.preflight.cache_sizes import CacheSizes, cache_sizes
from grpo_gsm8k.preflight.checks import CheckLine, Status
from grpo_gsm8k.preflight.devices import GIB
from grpo_gsm8k.preflight.diagnosis import Diagnosis, diagnose, fit_lines
from grpo_gsm8k.preflight.engine_memory import actor_memory, shm_bytes
from grpo_gsm8k.preflight.fit import with_overrides
from grpo_gsm8k.preflight.machine import Gpu, Machine
from grpo_gsm8k.preflight.memory import gib
from grpo_gsm8k.preflight.parameters import ModelShape
from tests.preflight.conftest import MACHINE

L40S, A100 = Gpu("NVIDIA L40S", 44.5, 44.2), Gpu("NVIDIA A100-SXM4-80GB", 79.2, 78.8)
RTX4090 = Gpu("NVIDIA GeForce RTX 4090", 23.9, 23.5)
QLORA = ("learner=qlora", "actor.lora=merged")


def on(gpu: Gpu, count: int = 1) -> Machine:
    return replace(MACHINE, gpus=(gpu,) * count)


def diagnosed(shape: ModelShape, machine: Machine, *overrides: str) -> tuple[Config, Diagnosis, dict[str, CheckLine]]:
    config = load_config(["command=policy_gradient", *overrides])
    diagnosis = diagnose(shape, config, machine, 100)
    return config, diagnosis, {line.name: line for line in fit_lines(diagnosis, config)}


def test_an_8b_model_with_qlora_on_one_l40s(shape_8b: ModelShape) -> None:
    """The default share leaves the engine 16 GiB of weights and one sequence: what is suggested gives it more."""
    given = ("preset=one_gpu", *QLORA, "learner.lora.rank=32", "policy_gradient.max_new_tokens=1024")
    config, diagnosis, lines = diagnosed(shape_8b, on(L40S), *given)
    assert lines["learner"].status is Status.FAILURE
    assert diagnosis.suggestion is not None
    assert "actor.gpu_memory=" in lines["learner"].fix
    changed = with_overrides(config, list(diagnosis.suggestion.overrides))
    again = diagnose(shape_8b, changed, on(L40S), 100)
    assert again.sides.fits
    assert again.sides.actor.sequences >= 8
    assert gib(shm_bytes(shape_8b, config)) == "44.9 GiB"  # three versions of the merged weights


def test_few_sequences_at_once_are_a_warning(shape_8b: ModelShape) -> None:
    _, diagnosis, lines = diagnosed(
        shape_8b,
        on(L40S),
        *("preset=one_gpu", *QLORA, "learner.gradient_checkpointing=true", "learner.token_budget=4096"),
        *("actor.gpu_memory=0.44", "policy_gradient.max_new_tokens=1024"),
    )
    assert 1 <= diagnosis.sides.actor.sequences < 8
    assert lines["learner"].status is Status.OK
    assert lines["actor"].status is Status.WARNING
    assert lines["actor"].fix.startswith("add actor.gpu_memory=")


def test_ppo_of_a_3b_model_with_qlora_on_one_a100(shape_3b: ModelShape) -> None:
    _, diagnosis, lines = diagnosed(shape_3b, on(A100), "recipe=qwen3b_ppo_qlora", "preset=one_gpu")
    assert {line.status for line in lines.values()} == {Status.OK}
    assert diagnosis.sides.actor.sequences >= 64
    assert diagnosis.sides.learner_room < 0.6 * 79.2 * GIB
    long = ("preset=one_gpu", "policy_gradient=ppo", *QLORA)  # answers of up to 1,536 tokens, and a critic of its own
    _, diagnosis, lines = diagnosed(shape_3b, on(A100), *long)
    assert lines["learner"].fix == "add actor.gpu_memory=0.3"


def test_a_1_5b_model_in_full(shape_1_5b: ModelShape) -> None:
    _, _, two = diagnosed(shape_1_5b, on(A100, 2))
    assert {line.status for line in two.values()} == {Status.OK}
    config, diagnosis, one = diagnosed(shape_1_5b, on(RTX4090), "preset=one_gpu")
    assert one["learner"].status is Status.FAILURE
    assert diagnosis.suggestion is not None
    changed = with_overrides(config, list(diagnosis.suggestion.overrides))
    assert diagnose(shape_1_5b, changed, on(RTX4090), 100).sides.fits


def test_a_suite_needs_room_too(shape_3b: ModelShape) -> None:
    given = ("policy_gradient.regression_suite.tasks=[arc_easy]", "actor.gpu_memory=0.74")
    _, _, lines = diagnosed(shape_3b, on(A100, 2), *given, "learner=lora")
    assert lines["suite"].status is Status.OK
    small = ("policy_gradient.regression_suite.gpu_memory=0.05",)
    _, _, lines = diagnosed(shape_3b, on(A100, 2), *given, *small, "learner=lora")
    assert lines["suite"].status is Status.FAILURE


def test_caches_beside_another_process_are_computed() -> None:
    def sizes(*overrides: str, machine: Machine = MACHINE, folder: Path = EMBEDDED_TINY) -> CacheSizes:
        return cache_sizes(load_config(["command=policy_gradient", *overrides]), machine, folder)

    assert sizes() == CacheSizes(None, None)  # a GPU of its own
    assert sizes("preset=cpu_demo") == CacheSizes(None, None)
    shared = sizes("preset=one_gpu")
    assert shared.actor is not None
    assert shared.suite is None
    assert 0.9 * 0.4 < shared.actor / (MACHINE.gpus or ())[0].memory_gib / GIB < 0.4
    both = sizes("policy_gradient.regression_suite.tasks=[arc_easy]", "actor.gpu_memory=0.7")
    assert both.actor is not None
    assert both.suite is not None
    assert both.suite < both.actor
    with pytest.raises(UserError, match=r"unknown without nvidia-smi.* doctor\.force=true"):
        sizes("preset=one_gpu", machine=replace(MACHINE, gpus=None))
    assert sizes("preset=one_gpu", "doctor.force=true", machine=replace(MACHINE, gpus=None)) == CacheSizes()


def test_an_engine_with_adapters_reserves_room_for_them(shape_8b: ModelShape) -> None:
    def overhead(*overrides: str) -> float:
        config = load_config(["command=policy_gradient", *overrides])
        return actor_memory(shape_8b, config, 80 * GIB, 0.85).overhead

    adapter = shape_8b.adapter(32, ["all-linear"])
    more = overhead("learner=lora", "learner.lora.rank=32") - overhead()
    assert more == pytest.approx(3 * 2 * adapter)
