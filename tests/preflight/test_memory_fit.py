"""The memory estimate compared with the measured peak of real steps; `make bench-memory` prints more."""

from __future__ import annotations

import pytest

from benchmarks.memory_fit import SETTINGS, run_case

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("setting", SETTINGS)
def test_within_15_percent_for_the_tiny_model(setting: str) -> None:
    peak = run_case("embedded:tiny", setting)
    assert peak.estimate == pytest.approx(peak.measured, rel=0.15)
