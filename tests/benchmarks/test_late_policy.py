"""The simulation of late completions: it repeats itself, and each policy does what its name says."""

from __future__ import annotations

import pytest

from benchmarks import late_policy
from benchmarks.late_policy import Costs, Measured, simulate
from grpo_gsm8k.actor import scripted_engine

COSTS = Costs(step_s=1e-3, token_s=1e-5)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripted_engine, "STEP_SECONDS", 0.0)
    monkeypatch.setattr(late_policy, "PROMPTS", 4)
    monkeypatch.setattr(late_policy, "LONGEST", 128)


def simulated(late: str) -> Measured:
    return simulate(late, 2, 1, 16, COSTS)


def test_late_completions_are_waited_for_dropped_or_continued() -> None:
    wait, drop, partial = (simulated(late) for late in ("wait", "drop", "partial"))
    assert (wait.dropped, wait.stale_tokens) == (0, 0)
    assert drop.dropped > 0
    assert drop.stale_tokens == 0
    assert drop.p99 < wait.p99
    assert partial.dropped == 0
    assert partial.stale_tokens > 0
    assert partial.updates_per_h > wait.updates_per_h
    assert simulated("drop") == drop
