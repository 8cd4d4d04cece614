"""Reward functions in their child processes: values, each kind of failure, and that nothing of a completion runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import AnswerFormat, Locale, grade
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.grading.rewards import RewardInput
from grpo_gsm8k.grading.user_rewards import GroupValues, OnError, RewardLimits, UserRewards
from grpo_gsm8k.tracking.redaction import without_secrets
from tests.conftest import patience

FILE = """
import os, random, sys, threading, time
from dataclasses import dataclass

calls = []

@dataclass
class Memory:
    text: str

def good(item):
    print("x" * 100_000)
    return len(item.text)

def sees_everything(item):
    assert (item.question, item.prompt, item.gold, item.problem.id) == ("What is 2 + 3?", "Q:", "5", "p-1")
    assert (item.token_ids, item.tokens, item.finish_reason, item.truncated) == ((1, 2, 3), 3, "length", True)
    assert item.extra == {"level": 3, "tags": ["sum"]}
    assert (item.grade.extracted, item.grade.correct, item.grade.well_formed) == ("5", True, True)
    return 1

def group(items):
    return [len(items)] * len(items)

def raises_on_b(item):
    return 1 / (item.text != "b")

def hangs_on_b(item):
    if item.text == "b":
        time.sleep(600)
    return 1.0

def eats_memory(items):
    return len(bytearray(4 << 30))

def hides_memory_errors(item):
    try:
        bytearray(4 << 30)
    except MemoryError:
        return 0.5

def leaves(item):
    os._exit(7)

def wrong_length(items):
    return [1.0]

def not_a_number(item):
    return float("nan")

def starts_threads(item):
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(600,)).start()
    return 1.0

def reads_input(item):
    return len(sys.stdin.read())

def chance(item):
    return random.random() + hash(item.text) / 2**80

def pid(item):
    return os.getpid()

def secrets(item):
    return sum(name in os.environ for name in ("WANDB_API_KEY", "HF_TOKEN", "OPENAI_API_KEY"))
"""
PROBLEM = Problem("p-1", "What is 2 + 3?", "#### 5", "5", {"level": 3, "tags": ["sum"]})
GRADE = grade("#### 5", "5", AnswerFormat.HASH, Locale.EN)
Open = Callable[..., UserRewards]


def inputs(*texts: str) -> list[RewardInput]:
    return [RewardInput(PROBLEM, "Q:", text, (1, 2, 3), "length", GRADE) for text in texts]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    made: list[UserRewards] = []

    def start(on_error: OnError = "stop", timeout_s: float = 60.0, report: Any = None, **more: Any) -> UserRewards:
        files = more.get("files", [path])
        environment: Mapping[str, str] = more.get("environment", os.environ)
        limits = RewardLimits(timeout_s, 1024, on_error, 7)
        made.append(UserRewards(files, limits, environment, 2, report or (lambda part, reason: None)))
        return made[-1]

    yield start
    for rewards in made:
        rewards.close()


def test_all_parts_of_a_group_in_one_call(opened: Open) -> None:
    found = opened().score(["good", "sees_everything", "group", "starts_threads", "reads_input"], inputs("a", "bcd"))
    assert found == GroupValues(
        {
            "good": [1.0, 3.0],
            "sees_everything": [1.0, 1.0],
            "group": [2.0, 2.0],
            "starts_threads": [1.0, 1.0],
            "reads_input": [0.0, 0.0],
        },
        {},
    )


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("raises_on_b", r"completion 2 of 3: mine\.py line \d+: ZeroDivisionError: division by zero; fix the function"),
        ("eats_memory", r"all 3 completions: more than 1024 MB of memory \(policy_gradient\.rewards_memory_mb\); fix"),
        ("leaves", r"completion 1 of 3: the process ended with exit code 7; fix"),
        ("wrong_length", r"all 3 completions: returned 1 values for 3 completions; fix"),
        ("not_a_number", r"completion 1 of 3: returned nan, which is not finite; fix"),
    ],
)
def test_a_failure_stops_with_part_item_and_reason(opened: Open, part: str, message: str) -> None:
    rewards = opened()
    first = rewards.score(["pid"], inputs("a")).values["pid"][0]
    with pytest.raises(UserError, match=rf"^policy_gradient\.rewards\.{part} failed for item p-1, {message}") as caught:
        rewards.score(["good", part], inputs("a", "b", "c"))
    assert "\n" not in str(caught.value)
    assert "rewards_on_error=zero" in str(caught.value)
    assert not psutil.pid_exists(int(first))  # the child is replaced
    assert rewards.score(["good"], inputs("ab")).values == {"good": [2.0]}


def test_a_hanging_function_is_ended(opened: Open) -> None:
    limit = patience(2)
    message = f"hangs_on_b failed for item p-1, completion 2 of 2: no answer within {limit:g} s"
    with pytest.raises(UserError, match=message):
        opened(timeout_s=limit).score(["good", "hangs_on_b"], inputs("a", "b"))


def test_failures_that_count_as_zero(opened: Open) -> None:
    reports: list[tuple[str, str]] = []
    rewards = opened("zero", timeout_s=patience(3), report=lambda part, reason: reports.append((part, reason)))
    parts = ["good", "raises_on_b", "hangs_on_b", "group"]
    expected = GroupValues(
        {"good": [1.0, 1.0], "raises_on_b": [1.0, 0.0], "hangs_on_b": [0.0, 0.0], "group": [2.0, 2.0]},
        {"raises_on_b": frozenset({1}), "hangs_on_b": frozenset({0, 1})},
    )
    assert rewards.score(parts, inputs("a", "b")) == expected
    assert rewards.score(["raises_on_b"], inputs("b")).failed == {"raises_on_b": frozenset({0})}
    assert sorted(part for part, _ in reports) == ["hangs_on_b", "raises_on_b"]  # once each
    assert rewards.score(["hides_memory_errors"], inputs("a")).values == {"hides_memory_errors": [0.5]}


def test_a_child_that_ended_while_idle_is_replaced(opened: Open) -> None:
    rewards = opened()
    psutil.Process(int(rewards.score(["pid"], inputs("a")).values["pid"][0])).kill()
    assert rewards.score(["good"], inputs("abc")).values == {"good": [3.0]}


def test_chance_depends_on_the_group_alone(opened: Open) -> None:
    one, other = opened(), opened()
    first = [one.score(["chance"], inputs(*texts)).values["chance"] for texts in ("ab", "cd")]
    again = [other.score(["good", "chance"], inputs(*texts)).values["chance"] for texts in ("cd", "ab")]
    assert first == again[::-1]
    assert len(set(first[0])) == 2


def test_secrets_stay_out_of_the_child(opened: Open) -> None:
    names = ("WANDB_API_KEY", "HF_TOKEN", "OPENAI_API_KEY")
    environment = {**os.environ, **dict.fromkeys(names, "0123456789")}
    assert opened(environment=environment).score(["secrets"], inputs("a")).values == {"secrets": [3.0]}
    hidden = without_secrets(environment)
    assert opened(environment=hidden).score(["secrets"], inputs("a")).values == {"secrets": [0.0]}
    assert {"PATH"} <= set(hidden)


def test_code_in_a_completion_is_not_executed(opened: Open, tmp_path: Path) -> None:
    target = tmp_path / "touched"
    code = f"open({str(target)!r}, 'w').close()"
    texts = [
        f"```python\n{code}\n```\n#### 5",
        f"__import__('os').system('touch {target}')",
        f'"}}\n{{"parts": ["good"]}}\n{code}\n',
        f"{{0.__class__}}{{{code}}}\x00\u2028\ud800",
    ]
    found = opened().score(["good", "group"], inputs(*texts))
    assert found.values["good"] == [float(len(text)) for text in texts]
    assert not target.exists()


def test_weights_and_functions_are_compared_before_a_run(opened: Open, tmp_path: Path) -> None:
    opened().check({"good": -1.0, "correct": 1.0, "group": 0.0})
    for weights, message in (
        ({"good": 1.0, "godo": 1.0}, r"rewards\.godo: unknown reward part; known: chance, correct, eats_memory"),
        ({"correct": 1.0}, r"weighs no function of mine\.py \(good, sees_everything"),
        ({}, r"policy_gradient\.rewards: empty"),
    ):
        with pytest.raises(UserError, match=message):
            opened().check(weights)


def test_every_file_has_a_weighted_function(opened: Open, tmp_path: Path) -> None:
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("def first(item): return 1\n")
    other.write_text("def second(item): return 1\n")
    rewards = opened(files=[one, other])
    rewards.check({"first": 1.0, "second": 0.0})
    with pytest.raises(
        UserError, match=r"policy_gradient\.rewards weighs no function of other\.py \(second\): add one"
    ):
        rewards.check({"first": 1.0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def correct(item): return 1\n", r"mine2\.py defines correct, which is a shipped part"),
        ("def tag_count(item): return 1\n", r"mine2\.py defines tag_count, which is a shipped part"),
        ("def mean(item): return 1\n", r"mine2\.py defines mean, whose metric has another meaning"),
        ("def f(a, b): return 1\n", r"mine2\.py line 1: f: it does not take exactly one argument"),
        ("\n\ndef f(item) return 1\n", r"^policy_gradient\.rewards_file: mine2\.py line 3: SyntaxError"),
        ("import os\nos._exit(3)\n", r"loading failed: the process ended with exit code 3"),
        ("x = bytearray(4 << 30)\n", r"loading failed: more than 1024 MB of memory"),
        (
            "import helper\ndef f(item): return 1\n",
            r"mine2\.py line 1: ModuleNotFoundError: No module named 'helper'",
        ),
        ("import tests.conftest\ndef f(item): return 1\n", r"ModuleNotFoundError: No module named 'tests'"),
    ],
)
def test_files_that_are_refused(opened: Open, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine2.py"
    path.write_text(text)
    (tmp_path / "helper.py").write_text("")
    with pytest.raises(UserError, match=message) as caught:
        opened(files=[path]).check({"f": 1.0})
    assert "\n" not in str(caught.value)


STARTS = """
import os, subprocess

def start(item):
    return subprocess.Popen(["sleep", "600"]).pid

def huge(items):
    return [1.0] * 3_000_000

def leaves(item):
    os._exit(3)

def closes(item):
    os.closerange(3, 100)
    return 1.0
"""


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("huge", "all 1 completions: returned 3000000 values for 1"),
        ("leaves", "completion 1 of 1: the process ended with exit code 3"),
        ("closes", "completion 1 of 1: the process ended with exit code 1"),
    ],
)
def test_processes_that_a_function_started_end_with_its_child(
    opened: Open, tmp_path: Path, part: str, message: str
) -> None:
    path = tmp_path / "starts.py"
    path.write_text(STARTS)
    rewards = opened(files=[path])
    started = psutil.Process(int(rewards.score(["start"], inputs("a")).values["start"][0]))
    assert is_running(started)
    with pytest.raises(UserError, match=f"{part} failed for item p-1, {message}"):
        rewards.score([part], inputs("a"))
    deadline = time.monotonic() + 10  # the kernel ends it, and this process is not its parent
    while is_running(started) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(started)


def is_running(process: psutil.Process) -> bool:
    """Whether a process has not ended; one that nobody has waited for has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
