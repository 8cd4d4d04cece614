"""When learner and engine take turns on the same CPU cores."""

from __future__ import annotations

import pytest

from grpo_gsm8k.learner.cpu_turns import takes_turns
from tests.learner.conftest import small_config

BOTH = ("actor.threads=2", "learner.threads=2", "policy_gradient.max_staleness=0")


@pytest.mark.parametrize(
    ("overrides", "cores", "expected"),
    [
        (BOTH, 2, True),
        (BOTH, 4, False),
        ((*BOTH[:2], "policy_gradient.max_staleness=1"), 2, False),
        ((*BOTH[:2], "command=sft"), 2, True),
        ((*BOTH, "actor.device=cuda:0"), 2, False),
        (("actor.threads=1", "learner.threads=1", BOTH[2]), 2, False),
        ((*BOTH, "actor.cores=[0,1]", "learner.cores=[2,3]"), 2, False),
        (("actor.threads=1", "actor.replicas=2", "learner.threads=1", BOTH[2]), 2, True),
    ],
)
def test_turns_are_for_processes_that_need_the_same_cores(
    overrides: tuple[str, ...], cores: int, expected: bool
) -> None:
    assert takes_turns(small_config(*overrides), cores) is expected
