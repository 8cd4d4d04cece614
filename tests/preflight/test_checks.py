"""Checks of a machine, the doctor's report, and the check before training."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cli import load_config, main
from grpo_gsm8k.config import Config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.models import EMBEDDED_TINY
from grpo_gsm8k.preflight import gate
from grpo_gsm8k.preflight.checks import CheckLine, Status, gpu_lines, machine_lines, precision_lines, space_lines
from grpo_gsm8k.preflight.diagnosis import diagnose
from grpo_gsm8k.preflight.doctor import report
from grpo_gsm8k.preflight.machine import Gpu, Machine, probe
from grpo_gsm8k.preflight.parameters import ModelShape, from_weights
from tests.conftest import REPO
from tests.preflight.conftest import CPU, H100, MACHINE
from tests.preflight.test_fit import FOUR_OF_384

UPDATES = 300


def configuration(*overrides: str) -> Config:
    return load_config(["command=policy_gradient", *overrides])


def line(lines: list[CheckLine], name: str) -> CheckLine:
    return next(item for item in lines if item.name == name)


def test_a_good_machine_has_no_complaints(shape_1_5b: ModelShape) -> None:
    lines = [*machine_lines(MACHINE, configuration()), *space_lines(MACHINE, configuration(), shape_1_5b, UPDATES)]
    assert {item.status for item in lines} == {Status.OK}
    assert line(lines, "GPU link").text == "NVLink (NV18)"


def test_a_tiny_shm_is_a_failure_with_the_size_to_set(shape_1_5b: ModelShape) -> None:
    tiny = replace(MACHINE, shm_gib=0.0625, shm_free_gib=0.0625)  # Docker's default
    found = line(space_lines(tiny, configuration(), shape_1_5b, UPDATES), "shm")
    assert found.status is Status.FAILURE
    assert "--shm-size=11gb" in found.fix
    gone = line(space_lines(replace(MACHINE, shm_gib=None), configuration(), shape_1_5b, UPDATES), "shm")
    assert gone.status is Status.FAILURE
    assert "shm=FOLDER" in gone.fix


def test_a_missing_gpu_names_its_key() -> None:
    found = gpu_lines(replace(MACHINE, gpus=(H100,), links=""), configuration())
    assert [item.status for item in found] == [Status.FAILURE, Status.OK]
    assert "learner.device: cuda:1 is configured, but only 1 GPUs" in found[0].text
    assert "learner.device=cpu" in found[0].fix
    many = gpu_lines(MACHINE, configuration("actor.replicas=3", "learner.device=cuda:0"))
    assert "actor.device: cuda:2 is configured" in many[0].text


def test_a_gpu_in_use_is_a_warning() -> None:
    used = replace(H100, free_gib=20.0)
    lines = gpu_lines(replace(MACHINE, gpus=(H100, used), links=""), configuration())
    assert [item.status for item in lines] == [Status.OK, Status.WARNING]


def test_gpus_of_unknown_size_stop_nothing(shape_1_5b: ModelShape) -> None:
    unknown = replace(MACHINE, gpus=None)
    assert [item.status for item in gpu_lines(unknown, configuration())] == [Status.WARNING]
    assert gate.check_fit(unknown, configuration(), shape_1_5b, 10).places.known is False


def test_a_missing_key_is_a_failure_only_where_it_is_needed() -> None:
    bare = replace(MACHINE, keys=frozenset(), wandb_problem="wandb.mode=online has no API key")
    lines = machine_lines(bare, configuration("wandb.mode=online"))
    assert line(lines, "W&B").status is Status.FAILURE
    assert "WANDB_API_KEY" in line(lines, "W&B").fix
    assert line(lines, "keys").status is Status.WARNING
    assert "DEEPSEEK_API_KEY (command=traces)" in line(lines, "keys").text


def test_other_shortcomings() -> None:
    poor = replace(MACHINE, python="3.10.1", vllm=None, threads=1, hub="huggingface.co is not reachable: timed out")
    status = {item.name: item.status for item in machine_lines(poor, configuration("learner.threads=4"))}
    assert (status["Python"], status["vllm"]) == (Status.FAILURE, Status.FAILURE)
    assert (status["hub"], status["CPU threads"]) == (Status.WARNING, Status.WARNING)


def test_a_small_disk(shape_1_5b: ModelShape) -> None:
    def disk(free: float) -> CheckLine:
        return line(space_lines(replace(MACHINE, disk_free_gib=free), configuration(), shape_1_5b, UPDATES), "disk")

    assert [disk(free).status for free in (10.0, 40.0, 80.0)] == [Status.FAILURE, Status.WARNING, Status.OK]
    assert "policy_gradient.keep_last" in disk(10.0).fix


def test_training_that_cannot_fit_is_refused_with_overrides_that_do(shape_3b: ModelShape) -> None:
    small = replace(MACHINE, gpus=(Gpu("NVIDIA A100-SXM4-40GB", 39.4, 39.0),) * 2)
    config = configuration(*FOUR_OF_384)
    with pytest.raises(UserError, match=r"learner: needs .*add learner\.gradient_checkpointing=true.*doctor\.force"):
        gate.check_fit(small, config, shape_3b, 300)
    forced = configuration(*FOUR_OF_384, "doctor.force=true")
    assert not gate.check_fit(small, forced, shape_3b, 300).sides.fits
    large = replace(MACHINE, gpus=(Gpu("NVIDIA A100-SXM4-80GB", 79.2, 79.0),) * 2)
    assert gate.check_fit(large, config, shape_3b, 300).sides.fits
    with pytest.raises(UserError, match="shm-size"):
        gate.check_fit(replace(large, shm_free_gib=1.0), config, shape_3b, 300)


def test_a_cpu_run_is_checked_against_its_memory() -> None:
    shape, config = from_weights(EMBEDDED_TINY), configuration("preset=cpu_demo")
    assert gate.check_fit(CPU, config, shape, 30).sides.fits
    with pytest.raises(UserError, match="learner"):
        gate.check_fit(replace(CPU, ram_gib=1.5, ram_free_gib=1.0), config, shape, 30)


def test_a_budget_in_dollars_needs_a_price() -> None:
    shape = from_weights(EMBEDDED_TINY)
    with pytest.raises(UserError, match=r"budget\.usd_per_hour"):
        gate.check_fit(CPU, configuration("preset=cpu_demo", "budget.max_usd=1"), shape, 30)
    priced = configuration("preset=cpu_demo", "budget.max_usd=1", "budget.usd_per_hour=0.1")
    made = gate.check_fit(CPU, priced, shape, 30).estimate
    assert made.usd == pytest.approx(0.1 * made.hours)


def test_prices_come_from_the_table(shape_1_5b: ModelShape) -> None:
    made = diagnose(shape_1_5b, configuration(), MACHINE, 300).estimate
    assert made.usd_per_hour == pytest.approx(2 * 2.70)
    assert made.usd == pytest.approx(made.hours * 5.40)
    assert diagnose(shape_1_5b, configuration("budget.usd_per_hour=1"), MACHINE, 300).estimate.usd_per_hour == 1
    odd = replace(MACHINE, gpus=(Gpu("NVIDIA Something New", 96.0, 95.0),) * 2)
    assert diagnose(shape_1_5b, configuration(), odd, 300).estimate.usd is None


def test_report_as_json(shape_3b: ModelShape, capsys: pytest.CaptureFixture[str]) -> None:
    config = configuration(*FOUR_OF_384, "doctor.json=true", "doctor.gpu=a100-40gb")
    assert report(MACHINE, config, shape_3b) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["ok"] is False
    assert shown["fits"] is False
    assert shown["learner"]["weights"] == 4 * 3_085_938_688
    assert shown["nearest_that_fits"][0] == "learner.gradient_checkpointing=true"
    assert {check["status"] for check in shown["checks"]} == {"ok", "failure"}
    roomy = configuration(*FOUR_OF_384, "doctor.json=true", "doctor.gpu=a100-80gb")
    assert report(replace(MACHINE, disk_free_gib=1.0), roomy, shape_3b) == 0  # doctor.gpu: another disk
    assert json.loads(capsys.readouterr().out)["fits"] is True


def test_report_for_people(shape_3b: ModelShape, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(MACHINE, configuration(*FOUR_OF_384, "doctor.gpu=a100-40gb"), shape_3b) == 1
    out = capsys.readouterr().out
    assert "verdict: does not fit a100-40gb and a100-40gb" in out
    assert "learner.gradient_checkpointing=true" in out
    assert "chunked log-probabilities" in out
    assert report(MACHINE, configuration("doctor.gpu=a100-40gb", "doctor.force=true"), shape_3b) == 0


def test_an_unknown_model_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(MACHINE, configuration(), None, "model.path=x: not there") == 1
    assert "model.path=x: not there" in capsys.readouterr().out


def test_the_command_on_this_machine(tmp_path: Path, qwen_3b: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["command=doctor", "preset=cpu_demo", "doctor.json=true", f"artifacts={tmp_path}"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    gpu = ["command=doctor", f"model.path={qwen_3b}", "doctor.gpu=a100-40gb", f"artifacts={tmp_path}", *FOUR_OF_384]
    assert main(gpu) == 1
    assert "does not fit" in capsys.readouterr().out
    assert main(["command=doctor", "preset=cpu_demo", "doctor.gpu=abacus"]) == 2


def test_the_check_before_training_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from cli import load_config; from grpo_gsm8k.models import EMBEDDED_TINY;"
        "from grpo_gsm8k.preflight import gate;"
        "config = load_config(['command=policy_gradient', 'preset=cpu_demo']);"
        "gate.check(config, gate.inspect_machine(config), EMBEDDED_TINY, 30);"
        "print({'torch', 'vllm', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    line, _, modules = done.stdout.strip().splitlines()
    assert line.startswith("preflight: learner ")
    assert modules == "set()"


def test_probe_of_this_machine() -> None:
    machine: Machine = probe(configuration("preset=cpu_demo"))
    assert machine.threads >= 1
    assert machine.ram_gib > 0.5
    assert machine.shm_gib is not None
    assert machine.torch is not None
    gone = probe(configuration("preset=cpu_demo", "shm=/no/such/folder"), thorough=False)
    assert gone.shm_gib is None
    assert gone.hub == ""


@pytest.mark.parametrize(
    ("bf16", "dtype", "status"),
    [
        (True, "bfloat16", Status.OK),
        (False, "bfloat16", Status.WARNING),
        (False, "float32", Status.OK),
    ],
)
def test_bfloat16_that_a_cpu_emulates_is_warned_of(bf16: bool, dtype: str, status: Status) -> None:
    machine = replace(CPU, cpu_bf16=bf16)
    config = configuration("preset=cpu_demo", f"learner.dtype={dtype}")
    (line,) = precision_lines(machine, config)
    assert line.status is status
    assert line.text.startswith(f"actor float32, learner {dtype}; the CPU has ")
    assert ("learner.dtype=auto" in line.fix) == (status is Status.WARNING)
    assert precision_lines(machine, configuration()) == []  # both on GPUs
