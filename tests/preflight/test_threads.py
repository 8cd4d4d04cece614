"""The threads that `auto` stands for."""

from __future__ import annotations

import sys

import pytest

from cli import load_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.preflight.threads import Threads, choose_threads, threads_line, with_threads
from grpo_gsm8k.tracking.hardware import whole_cores

AUTO = ("preset=cpu_demo", "actor.threads=auto", "learner.threads=auto")
SYNC = "policy_gradient.max_staleness=0"


@pytest.mark.parametrize(
    ("words", "hidden", "cores", "expected"),
    [
        (["command=policy_gradient"], 96, 2, Threads(1, 1)),  # narrow: the cores are split
        (["command=policy_gradient"], 96, 8, Threads(4, 4)),
        (["command=policy_gradient"], 96, 1, Threads(1, 1)),
        (["command=sft"], 96, 4, Threads(2, 3)),
        (["command=policy_gradient", SYNC], 576, 2, Threads(2, 2)),  # wide: they take turns
        (["command=policy_gradient"], 576, 2, Threads(2, 1)),  # wide, but both work at once
        (["command=policy_gradient"], 576, 8, Threads(8, 4)),
        (["command=sft"], 576, 8, Threads(8, 8)),
        (["command=policy_gradient", "actor.replicas=2", SYNC], 576, 8, Threads(4, 8)),
        (["command=policy_gradient", SYNC, "actor.cores=[0,1,2]", "learner.cores=[3]"], 576, 8, Threads(3, 1)),
        (["command=policy_gradient", "actor.device=cuda:0", "learner.device=cuda:1"], 1536, 32, Threads(1, 4)),
        (["command=policy_gradient", "learner.threads=3", SYNC], 576, 8, Threads(8, 3)),  # a number stays
    ],
)
def test_threads_by_width_and_cores(words: list[str], hidden: int, cores: int, expected: Threads) -> None:
    assert choose_threads(load_config([*AUTO, *words]), hidden, cores) == expected


def test_what_was_decided_is_said_and_in_the_configuration() -> None:
    config = load_config(["command=policy_gradient", "preset=cpu_demo", "actor.threads=auto"])
    decided = with_threads(config, 96, 2)
    assert (decided.actor.threads, decided.learner.threads) == (1, 1)
    assert threads_line(config, decided) == "actor.threads=auto is 1"
    assert threads_line(decided, decided) == ""


def test_other_words_are_refused() -> None:
    with pytest.raises(UserError, match=r"learner\.threads.*number of threads, or auto, not many"):
        load_config(["command=policy_gradient", "learner.threads=many"])


@pytest.mark.parametrize(
    ("cpu_max", "cores"), [("max 100000", sys.maxsize), ("", sys.maxsize), ("250000 100000", 2), ("50000 100000", 1)]
)
def test_the_cpu_limit_of_a_container(cpu_max: str, cores: int) -> None:
    assert whole_cores(cpu_max) == cores
