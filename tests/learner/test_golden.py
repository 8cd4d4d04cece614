"""No setting's learning changes unnoticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.learner.golden import GOLDEN, SETTINGS, UPDATES, curve

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("golden")


@pytest.mark.parametrize("setting", SETTINGS)
def test_losses_are_those_on_record(setting: str, artifacts: Path) -> None:
    expected = json.loads((GOLDEN / f"{setting}.json").read_text())
    found = curve(setting, artifacts)
    assert len(expected["loss"]) == UPDATES
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6, abs=1e-6)
    assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)


def test_settings_differ() -> None:
    curves = {name: tuple(json.loads((GOLDEN / f"{name}.json").read_text())["grad_norm"]) for name in SETTINGS}
    assert len(set(curves.values())) == len(SETTINGS)
