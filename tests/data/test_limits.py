"""The choice of evaluated problems."""

from __future__ import annotations

import hashlib
import random

import pytest

from cli import load_config
from grpo_gsm8k.data.limits import limit_count, limited
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.problem import Problem

PROBLEMS = [Problem(f"q{i}", f"{i}?", f"#### {i}", str(i)) for i in range(300)]


def ids(limit: int | str | None, seed: int = 0, problems: list[Problem] = PROBLEMS) -> list[str]:
    return [problem.id for problem in limited(problems, limit, seed, "eval.limit")]


def test_drawn_problems_are_those_with_the_smallest_hashes() -> None:
    def digest(name: str) -> str:
        return hashlib.sha256(f"7:{name}".encode()).hexdigest()

    assert ids("random:256", 7) == sorted((p.id for p in PROBLEMS), key=digest)[:256]


def test_the_draw_depends_on_the_seed_and_not_on_the_order() -> None:
    shuffled = random.Random(0).sample(PROBLEMS, len(PROBLEMS))
    assert ids("random:20", problems=shuffled) == ids("random:20")
    assert ids("random:50")[:20] == ids("random:20")
    assert set(ids("random:50", 1)) != set(ids("random:50", 0))
    assert len(set(ids("random:300"))) == 300


def test_the_first_and_all() -> None:
    assert ids(3) == ["q0", "q1", "q2"]
    assert ids(None) == [problem.id for problem in PROBLEMS]
    assert [limit_count(limit, 9) for limit in (None, 4, "random:5")] == [9, 4, 5]


@pytest.mark.parametrize("limit", [301, "random:301"])
def test_more_than_there_are_is_refused(limit: int | str) -> None:
    with pytest.raises(UserError, match=rf"^eval\.limit={limit}: there are only 300; lower it") as error:
        ids(limit)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["eval.limit", "sft.eval_limit", "policy_gradient.eval_limit"])
@pytest.mark.parametrize("value", ["random:0", "random:-1", "random:", "random", "random:5x", "0", "2.5"])
def test_what_is_no_limit_is_refused_in_one_line(key: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"^{key}") as error:
        load_config(["command=eval", "preset=cpu_demo", f"{key}={value}"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["eval.limit", "sft.eval_limit", "policy_gradient.eval_limit"])
@pytest.mark.parametrize("value", [3, "random:256", None])
def test_a_number_stays_a_number(key: str, value: int | str | None) -> None:
    section, _, name = key.partition(".")
    config = load_config(["command=eval", "preset=cpu_demo", f"{key}={'null' if value is None else value}"])
    assert getattr(getattr(config, section), name) == value


def test_generation_takes_the_first_lines_only() -> None:
    with pytest.raises(UserError, match=r"eval\.suite=generate takes the first lines only: set eval\.limit=N"):
        load_config(
            ["command=eval", "preset=cpu_demo", "eval.suite=generate", "eval.input_path=x", "eval.limit=random:2"]
        )
