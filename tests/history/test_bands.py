"""The comparison with curves on record, on curves whose fault is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.history.bands import one_sided_run, outside_band


def recorded(seeds: int = 5, updates: int = 20) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.linspace(1.0, 0.5, updates) + 0.05 * rng.normal(size=(seeds, updates))


def test_a_further_seed_is_inside_and_a_jump_on_either_side_or_nan_is_outside() -> None:
    rng = np.random.default_rng(1)
    inside = [not outside_band(recorded(), np.linspace(1.0, 0.5, 20) + 0.05 * rng.normal(size=20)) for _ in range(200)]
    assert sum(inside) >= 190  # of 4,000 numbers, about 4 are expected outside intervals of 99.9 %
    for wrong in (1.0, -1.0, np.nan, np.inf):
        curve = np.linspace(1.0, 0.5, 20)
        curve[7] += wrong
        assert outside_band(recorded(), curve) == [7]


def test_the_band_is_the_prediction_interval() -> None:
    """Equal spreads at all updates: the formula of the mean's textbook interval, t(4) at 99.95 % is 8.610."""
    steps = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    curves = np.repeat(steps[:, None], 3, axis=1)
    reach = 8.6103 * np.sqrt(2.5) * np.sqrt(1.2)
    assert outside_band(curves, [reach - 0.01] * 3) == []
    assert outside_band(curves, [reach + 0.01, 0.0, -reach - 0.01]) == [0, 2]


@pytest.mark.parametrize("drift", [0.97, 1.03, 1.002])
def test_a_small_drift_is_a_run_on_one_side(drift: float) -> None:
    curve = recorded()[0]
    assert one_sided_run(curve, curve * drift) == (0, 19)
    late = np.where(np.arange(20) < 8, curve, curve * drift)
    assert one_sided_run(curve, late) == (8, 19)
    assert one_sided_run(curve, np.where(np.arange(20) < 12, curve, curve * drift)) is None  # too short to tell
    other = 1 - 5 * (drift - 1) * (-1.0) ** np.arange(20)  # of both signs: the tokens that another policy samples
    assert one_sided_run(curve, curve * np.where(np.arange(20) < 6, drift, other)) == (0, 5)


def test_rounding_and_differences_of_both_signs_are_no_drift() -> None:
    curve = recorded()[0]
    rng = np.random.default_rng(2)
    assert one_sided_run(curve, curve) is None
    assert one_sided_run(curve, curve * (1 + 1e-6)) is None
    apart = np.where(np.arange(20) < 3, 1.0, 1 + 0.2 * rng.normal(size=20))
    assert one_sided_run(curve, curve * apart) is None
    assert one_sided_run([0.0] * 20, [0.0] * 20) is None
    assert one_sided_run([2e-7] * 20, [3e-7] * 20) is None
