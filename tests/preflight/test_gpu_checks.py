"""Checks of GPUs that nvidia-smi reports: mixed, divided by MIG, busy, with an old driver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cli import load_config
from grpo_gsm8k.config import Config
from grpo_gsm8k.preflight.checks import CheckLine, Status, gpu_lines
from grpo_gsm8k.preflight.diagnosis import diagnose, fit_lines, hourly_price, places_of
from grpo_gsm8k.preflight.machine import Gpu, Machine, probe
from grpo_gsm8k.preflight.parameters import ModelShape
from tests import fake_nvidia_smi as fake
from tests.preflight.conftest import H100, MACHINE


def configuration(*overrides: str) -> Config:
    return load_config(["command=policy_gradient", *overrides])


def failures(machine: Machine, *overrides: str) -> list[CheckLine]:
    return [line for line in gpu_lines(machine, configuration(*overrides)) if line.status is Status.FAILURE]


def test_eight_gpus_of_two_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(tmp_path, monkeypatch, fake.EIGHT_MIXED)
    config = configuration("actor.device=cuda:3", "learner.device=cuda:4")
    machine = probe(config, thorough=False)
    places = places_of(config, machine)
    assert (places.actor.name, places.learner.name) == ("l40s", "a100-80gb")
    assert len(gpu_lines(machine, config)) == 8
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"7,{fake.UUID.format(0)}")
    machine = probe(configuration(), thorough=False)
    places = places_of(configuration(), machine)
    assert (places.actor.name, places.learner.name) == ("a100-80gb", "l40s")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (first, second) = failures(probe(configuration(), thorough=False))
    assert "actor.device: cuda:0 is configured, but only 0 GPUs are visible with CUDA_VISIBLE_DEVICES=" in first.text
    assert "learner.device" in second.text


def test_gpus_of_several_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape_1_5b: ModelShape) -> None:
    """The smallest one decides whether the learner fits, and each of them is paid for."""
    fake.install(tmp_path, monkeypatch, fake.EIGHT_MIXED)
    words = ("learner.device=cuda:4", "learner.devices=[cuda:4,cuda:3]")
    machine = probe(configuration(), thorough=False)
    places = places_of(configuration(*words), machine)
    assert (places.learner.name, places.shared, places.known) == ("l40s", False, True)
    one, two = (hourly_price(configuration(*some), places) for some in (("learner.device=cuda:3",), words))
    assert one is not None
    assert two == pytest.approx(one + places.learner.usd_per_hour)
    found = fit_lines(diagnose(shape_1_5b, configuration(*words), machine, 1), configuration(*words))
    assert "for each of 2 ranks, has 45.0 GiB of l40s" in found[0].text
    (line,) = failures(machine, "learner.device=cuda:4", "learner.devices=[cuda:4,cuda:8]")
    assert "learner.devices: cuda:8 is configured, but only 8 GPUs are visible" in line.text
    assert "set learner.devices=null" in line.fix


def test_parts_of_a_gpu_need_a_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(tmp_path, monkeypatch, fake.DIVIDED, fake.DIVIDED_LIST)
    (line,) = failures(probe(configuration(), thorough=False))
    assert "CUDA_VISIBLE_DEVICES=MIG-" in line.fix
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", fake.MIG_UUID.format("a"))
    assert not failures(probe(configuration(), thorough=False), "preset=one_gpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{fake.MIG_UUID.format('a')},{fake.MIG_UUID.format('b')}")
    machine = probe(configuration(), thorough=False)
    (line,) = failures(machine)
    assert "a process sees only the first of several MIG devices" in line.text
    assert "learner.device=cuda:0 actor.device=cuda:1" in line.fix
    assert not failures(machine, "learner.device=cuda:0", "actor.device=cuda:1")
    (line,) = failures(machine, "learner.device=cuda:1", "learner.devices=[cuda:1]")
    assert "set learner.device=cuda:0" in line.fix


@pytest.mark.parametrize(
    ("driver", "cuda", "refused"),
    [("575.57.08", "13.0", True), ("580.65", "13.0", False), ("550.9", "12.6", False), ("550.9", None, False)],
)
def test_a_driver_too_old_for_torch(driver: str, cuda: str | None, refused: bool) -> None:
    machine = replace(MACHINE, driver=driver, cuda=cuda)
    found = failures(machine)
    assert bool(found) == refused
    if refused:
        assert "575.57.08 is too old for torch's CUDA 13.0, which needs 580 or newer" in found[0].text
    assert not failures(machine, "actor.device=cpu", "actor.max_batched_tokens=8192", "learner.device=cpu")


def test_an_engine_without_its_share_is_refused() -> None:
    busy = Gpu("NVIDIA H100 80GB HBM3", 79.6, 60.0)
    machine = replace(MACHINE, gpus=(busy, H100))
    (line,) = failures(machine)
    assert "60.0 of 79.6 GiB free, driver 580.65, but the engine needs 67.7 GiB" in line.text
    assert "set actor.gpu_memory=0.74" in line.fix
    assert not failures(machine, "actor.gpu_memory=0.74")
    suite = ("policy_gradient.regression_suite.tasks=[arc_easy]", "actor.gpu_memory=0.7")
    (line,) = failures(machine, *suite)
    assert "set actor.gpu_memory=0.54" in line.fix
    assert not failures(machine, *suite[:1], "actor.gpu_memory=0.54")
    full = replace(MACHINE, gpus=(Gpu("NVIDIA H100 80GB HBM3", 79.6, 0.3), H100))
    assert failures(full)[0].fix == "end the process that uses its memory"
