"""The threads that `auto` stands for."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from cli import load_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.preflight.threads import choose_threads, with_threads
from grpo_gsm8k.tracking.hardware import whole_cores

AUTO = ("preset=cpu_demo", "actor.threads=auto", "learner.threads=auto")
SYNC = "policy_gradient.max_staleness=0"


@dataclass(frozen=True)
class Times:
    """Seconds with one thread, and the share of that time that further threads can shorten."""

    generate: float
    learn: float
    shared: float

    def generating_s(self, threads: int) -> float:
        return self.generate * (1 - self.shared + self.shared / threads)

    def learning_s(self, threads: int) -> float:
        return self.learn * (1 - self.shared + self.shared / threads)


TINY = Times(1.2, 0.8, 0.1)  # Python's and torch's work per operation, which further threads do not shorten
WIDE = Times(40, 90, 1.0)


@pytest.mark.parametrize(
    ("words", "times", "cores", "expected"),
    [
        ([], TINY, 2, (1, 1)),
        ([SYNC], TINY, 2, (1, 1)),  # a second thread saves too little
        ([], WIDE, 2, (1, 1)),
        ([SYNC], WIDE, 2, (2, 2)),
        ([], WIDE, 8, (3, 5)),  # 40 / 3 and 90 / 5 seconds, against 40 / 2 and 90 / 6
        ([SYNC], WIDE, 8, (8, 8)),
        ([SYNC, "deterministic=true"], TINY, 8, (8, 8)),  # whatever was measured
        ([], WIDE, 1, (1, 1)),
        (["actor.replicas=2"], WIDE, 8, (2, 4)),
        (["actor.replicas=2", SYNC], WIDE, 8, (4, 8)),
        (["command=sft"], TINY, 4, (4, 2)),
        (["command=sft"], WIDE, 4, (4, 4)),
        ([SYNC, "actor.cores=[0,1,2]", "learner.cores=[3]"], WIDE, 8, (3, 1)),
        (["learner.ranks=2"], WIDE, 8, (3, 2)),  # ranks divide the learner's five
        (["learner.ranks=2", "learner.threads=3"], WIDE, 8, (3, 3)),  # 40 / 3 and 90 / 6 seconds
        (["learner.ranks=4"], TINY, 2, (1, 1)),
        (["learner.threads=3", SYNC], WIDE, 8, (8, 3)),  # a number stays
        (["actor.threads=5"], WIDE, 8, (5, 3)),  # and the other one gets the rest
        ([], None, 8, (4, 4)),  # nothing is known: cores are split
        ([SYNC], None, 8, (8, 8)),
        (["actor.device=cuda:0", "learner.device=cuda:1"], None, 32, (1, 4)),
        (["actor.device=cuda:0", "learner.device=cuda:1", "learner.devices=[cuda:1,cuda:2]"], None, 32, (1, 4)),
        (["actor.device=cuda:0"], None, 32, (1, 31)),
    ],
)
def test_threads_by_predicted_times(
    words: list[str], times: Times | None, cores: int, expected: tuple[int, int]
) -> None:
    chosen = choose_threads(load_config(["command=policy_gradient", *AUTO, *words]), times, cores)
    assert (chosen.actor, chosen.learner) == expected


def test_no_other_split_is_faster() -> None:
    chosen = choose_threads(load_config(["command=policy_gradient", *AUTO]), WIDE, 16)
    seconds = {n: max(WIDE.generating_s(n), WIDE.learning_s(16 - n)) for n in range(1, 16)}
    assert seconds[chosen.actor] == min(seconds.values())
    assert chosen.actor + chosen.learner == 16


def test_what_was_decided_is_said_with_the_other_way_beside_it() -> None:
    config = load_config(["command=policy_gradient", *AUTO])
    decided, line = with_threads(config, WIDE, 2)
    assert (decided.actor.threads, decided.learner.threads) == (1, 1)
    assert line == (
        "actor.threads=auto is 1, learner.threads=auto is 1: both at once, predicted 1 min 30 s per update; taking "
        "turns, with max_staleness=0, 1 min 05 s"
    )
    assert with_threads(decided, WIDE, 2) == (decided, "")


def test_a_cut_of_turns_names_its_parts() -> None:
    _, line = with_threads(load_config(["command=policy_gradient", *AUTO, SYNC]), WIDE, 2)
    assert "taking turns, predicted 1 min 05 s per update (20 s to generate)" in line
    assert line.endswith("at once, with max_staleness above 0, 1 min 30 s")


def test_other_words_are_refused() -> None:
    with pytest.raises(UserError, match=r"learner\.threads.*number of threads, or auto, not many"):
        load_config(["command=policy_gradient", "learner.threads=many"])


@pytest.mark.parametrize(
    ("cpu_max", "cores"), [("max 100000", sys.maxsize), ("", sys.maxsize), ("250000 100000", 2), ("50000 100000", 1)]
)
def test_the_cpu_limit_of_a_container(cpu_max: str, cores: int) -> None:
    assert whole_cores(cpu_max) == cores
