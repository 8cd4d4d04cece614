"""Which failures count towards the limit of restarts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from grpo_gsm8k.errors import WorkerError
from grpo_gsm8k.runtime.restarts import FORGIVING_UPDATES, Restarts
from grpo_gsm8k.transport.protocol import Crashed

DIED: Any = SimpleNamespace(name="learner", crash=None, exit_reason="exit code -9")
CRASHED: Any = SimpleNamespace(name="learner", crash=Crashed("lost", fatal=False, user_error=False))


def restarts(limit: int) -> Restarts:
    return Restarts("learner", limit, lambda *_, **__: None, backoff_s=0.5)


def test_a_long_run_forgives_failures() -> None:
    found = restarts(limit=1)
    for failure in range(20):
        for step in range(FORGIVING_UPDATES):
            found.note_update(failure * FORGIVING_UPDATES + step + 1)
        found.note_failure(DIED, "", progressed=True)
    assert found.count == 20  # it numbers the learner's processes, so it never goes back


def test_a_failure_that_repeats_at_one_update_ends_the_run() -> None:
    found = restarts(limit=2)
    for _ in range(2):
        for step in range(100, 200):  # repeated from the checkpoint of update 99, up to the same one
            found.note_update(step)
        found.note_failure(DIED, "", progressed=True)
    with pytest.raises(WorkerError, match=r"failed 3 times \(limit learner.max_restarts\)"):
        found.note_failure(DIED, "", progressed=True)


def test_the_pause_before_a_restart_doubles_after_crashes_only() -> None:
    found = restarts(limit=9)
    assert [found.note_failure(CRASHED, "", progressed=True) for _ in range(3)] == [0.5, 1.0, 2.0]
    assert found.note_failure(DIED, "silent for 5 s", progressed=True) == 0.0
