"""Training is what it was: curves of this code within the bands of those on record, without a drift."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPO
from tests.history.bands import one_sided_run, outside_band
from tests.history.record import METHODS, SEEDS, read
from tests.learner.golden import INSTRUCTIONS, UPDATES

SEED = SEEDS[0]  # the others only make the bands


@pytest.mark.slow
def test_curves_are_like_those_on_record(tmp_path: Path) -> None:
    """The curves of one seed come from one process with the instructions of the recorded ones."""
    command = [sys.executable, "-m", "tests.history.record", str(tmp_path), str(SEED)]
    subprocess.run(command, check=True, cwd=REPO, env={**os.environ, **INSTRUCTIONS})
    for method in METHODS:
        curves = json.loads((tmp_path / f"{method}.json").read_text())
        recorded = read(method)
        assert curves.keys() == recorded.keys(), method
        for metric, by_seed in recorded.items():
            curve = curves[metric][str(SEED)]
            assert outside_band(np.array(list(by_seed.values())), curve) == [], (method, metric)
            assert one_sided_run(by_seed[SEED], curve) is None, (method, metric)


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_drift_of_three_percent_in_the_gradient_norm_fails(method: str) -> None:
    recorded = read(method)["grad_norm"]
    assert len(recorded) == len(SEEDS)
    for seed, curve in recorded.items():
        assert len(curve) == UPDATES
        assert one_sided_run(curve, curve) is None
        for drift in (0.97, 1.03):
            assert one_sided_run(recorded[seed], [drift * value for value in curve]) == (0, UPDATES - 1)
