"""The estimate of an update's duration, term by term, against arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cli import load_config
from grpo_gsm8k.models import EMBEDDED_TINY
from grpo_gsm8k.preflight import cost
from grpo_gsm8k.preflight.diagnosis import diagnose
from grpo_gsm8k.preflight.parameters import ModelShape, from_weights
from tests.preflight.conftest import CPU, MACHINE


def step_s(shape: ModelShape, *words: str) -> float:
    return diagnose(shape, load_config(["command=policy_gradient", *words]), MACHINE, 300).estimate.step_s


def test_an_update_on_its_own_gpu_is_arithmetic_and_publishing(shape_1_5b: ModelShape) -> None:
    """64 prompts of 160 tokens, 512 answers of 320: learning takes longer than generation here."""
    words = ["policy_gradient.episodes_per_update=512", "policy_gradient.group_size=8", "learner.compile=false"]
    tokens = 512 * 320 + 64 * 160
    arithmetic = 6 * shape_1_5b.trunk * tokens / (0.27 * 989e12)
    publishing = 2 * shape_1_5b.parameters / 1.5e9
    assert step_s(shape_1_5b, *words) == pytest.approx(arithmetic + publishing)


def test_a_teacher_computes_one_forward_pass(shape_1_5b: ModelShape, shape_3b: ModelShape) -> None:
    words = ["policy_gradient.episodes_per_update=512", "policy_gradient.group_size=8", "learner.compile=false"]
    alone, taught = (step_s(shape, *words) for shape in (shape_1_5b, replace(shape_1_5b, teacher=shape_3b)))
    tokens = 512 * 320 + 64 * 160
    assert taught - alone == pytest.approx(2 * shape_3b.trunk * tokens / (0.27 * 989e12))


def test_without_overlap_both_sides_and_the_copies_add_up(shape_1_5b: ModelShape) -> None:
    overlapping = step_s(shape_1_5b)
    alternating = step_s(shape_1_5b, "policy_gradient.max_staleness=0")
    loading = 2 * shape_1_5b.parameters / (cost.LOAD_GB_S * 1e9)
    assert alternating > overlapping + loading


def test_compiled_blocks_are_assumed_faster(shape_1_5b: ModelShape) -> None:
    assert step_s(shape_1_5b, "learner.compile=true") < step_s(shape_1_5b, "learner.compile=false")


def test_processes_on_cores_of_their_own_work_at_the_same_time() -> None:
    shape, words = from_weights(EMBEDDED_TINY), ["command=policy_gradient", "preset=cpu_demo"]
    one_core, two_cores = (
        diagnose(shape, load_config(words), replace(CPU, threads=threads), 30).estimate.step_s for threads in (1, 2)
    )
    assert two_cores < one_core


def test_a_run_on_a_cpu_starts_in_seconds() -> None:
    made = diagnose(from_weights(EMBEDDED_TINY), load_config(["command=policy_gradient", "preset=cpu_demo"]), CPU, 1)
    validations = made.estimate.hours * 3600 - made.estimate.step_s - cost.START_ON_CPU_S
    assert 0 < validations < 1000 * made.estimate.step_s  # before the first update and after the last
