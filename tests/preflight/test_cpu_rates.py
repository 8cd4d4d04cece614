"""Measured rates of the CPU: what is kept, and what is not believed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from grpo_gsm8k.models import EMBEDDED_TINY
from grpo_gsm8k.preflight import cpu_rates
from grpo_gsm8k.preflight.cpu_rates import CpuRates, MachineRates
from grpo_gsm8k.preflight.parameters import from_weights

ONE = CpuRates(1, 6e10, 7e10, 1e10, 1e9, 3e5)
TWO = CpuRates(2, 1e11, 1.2e11, 1.5e10, 1.8e9, 3e5)
SHAPE = from_weights(EMBEDDED_TINY)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def answer(monkeypatch: pytest.MonkeyPatch, *rates: CpuRates) -> list[object]:
    """Let the measurement return these rates; returns the list of questions asked."""
    asked: list[object] = []

    def measure(question: object) -> list[dict[str, float]]:
        asked.append(question)
        return [asdict(each) for each in rates]

    monkeypatch.setattr(cpu_rates, "_measure", measure)
    return asked


@pytest.mark.slow  # it measures the machine
def test_the_program_measures_plausible_rates_and_the_file_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cpu_rates.cpu_rates(SHAPE, "float32", 1)
    assert found is not None
    assert 1e8 < found.one.learning < 1e13
    assert 1e6 < found.one.values < 1e12
    assert 1e3 < found.one.small_ops < 1e8
    assert cpu_rates.rates_file().stat().st_mode & 0o777 == 0o600
    asked = answer(monkeypatch)
    assert cpu_rates.cpu_rates(SHAPE, "float32", 1) == found
    assert not asked


def test_other_precisions_cores_and_models_are_measured_on_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, ONE, TWO)
    for shape, dtype, cores in (
        (SHAPE, "float32", 2),
        (SHAPE, "bfloat16", 2),
        (replace(SHAPE, layers=3), "float32", 2),
    ):
        assert cpu_rates.cpu_rates(shape, dtype, cores) == MachineRates(ONE, TWO)
    assert len(asked) == 3
    assert len(json.loads(cpu_rates.rates_file().read_text())) == 3


def test_busy_cores_are_noticed_and_not_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """As measured beside other processes: two threads took twice as long as one, and products 30 times as long."""
    answer(monkeypatch, ONE, replace(TWO, learning=2e9, values=5e8))
    found = cpu_rates.cpu_rates(SHAPE, "float32", 2)
    assert found is not None
    assert found.all.learning == pytest.approx(1.7 * ONE.learning)
    assert "were busy" in capsys.readouterr().err
    assert not cpu_rates.rates_file().exists()


def test_a_narrow_model_may_gain_nothing_from_many_idle_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer(monkeypatch, ONE, replace(TWO, threads=16, learning=0.9 * ONE.learning, values=9e9))
    rates = cpu_rates.cpu_rates(SHAPE, "float32", 16)
    assert rates is not None
    assert rates.all.learning == 0.9 * ONE.learning
    assert len(found) == 1


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1', b'{"KEY": [{"threads": 1}, {}]}', b'{"KEY": 3}'])
def test_a_damaged_file_is_measured_again(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, ONE, TWO)
    cpu_rates.cpu_rates(SHAPE, "float32", 2)
    (key,) = json.loads(cpu_rates.rates_file().read_text())
    cpu_rates.rates_file().write_bytes(content.replace(b"KEY", key.encode()))
    asked = answer(monkeypatch, ONE, TWO)
    assert cpu_rates.cpu_rates(SHAPE, "float32", 2) == MachineRates(ONE, TWO)
    assert len(asked) == 1


def test_a_measurement_that_fails_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(cpu_rates, "PROGRAM", "grpo_gsm8k.no_such_module")
    assert cpu_rates.cpu_rates(SHAPE, "float32", 1) is None
    assert "could not be measured" in capsys.readouterr().err


def test_rates_between_one_thread_and_all() -> None:
    eight = replace(TWO, threads=8)
    rates = MachineRates(ONE, eight)
    assert rates.at(1) == ONE
    assert rates.at(8).learning == rates.at(99).learning == eight.learning
    assert rates.at(4).learning == pytest.approx(ONE.learning + 3 / 7 * (eight.learning - ONE.learning))
