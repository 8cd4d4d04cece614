"""Statistics that follow from a run's records."""

from __future__ import annotations

import pytest

from grpo_gsm8k.tracking.summary import seconds_of_sessions, validation_change


def test_wall_time_counts_the_working_time_of_every_process() -> None:
    times = [("start", 100.0), ("x", 110.0), ("start", 500.0), ("end", 507.0)]
    assert seconds_of_sessions([{"kind": kind, "time": at} for kind, at in times]) == 17.0
    assert seconds_of_sessions([]) == 0.0


@pytest.mark.parametrize(
    ("last", "expected"),
    [((0.41, 0.6), "higher"), ((0.4, 0.6), "none shown"), ((0.1, 0.19), "lower"), ((None, None), None)],
)
def test_a_change_needs_disjoint_intervals(last: tuple[float, float], expected: str | None) -> None:
    ends = [
        {"version": v, "accuracy_ci_low": lo, "accuracy_ci_high": hi} for v, (lo, hi) in ((0, (0.2, 0.4)), (8, last))
    ]
    assert validation_change(*ends) == expected
    assert validation_change(ends[0], ends[0]) is None
    assert validation_change(None, None) is None
