"""Which functions of a file are parts, what they get, and what they may return."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import AnswerFormat, Locale, grade
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.grading.rewards import RewardInput
from grpo_gsm8k.grading.rewards_file import PartValues, UserPart, call_part, load_parts

PROBLEM = Problem("p-1", "What is 2 + 3?", "#### 5", "5", {"steps": ["2 + 3"]})
TRL = "from grpo_gsm8k.grading.trl_rewards import trl_reward\n"


def written(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def inputs(*texts: str) -> list[RewardInput]:
    graded = grade("#### 5", "5", AnswerFormat.HASH, Locale.EN)
    return [RewardInput(PROBLEM, "Q", text, (1, 2), "stop", graded) for text in texts]


def called(function: Any, *texts: str, takes_group: bool = False) -> PartValues:
    part = UserPart("part", "test_rewards_file.py", 1, function, takes_group, "")
    return call_part(part, inputs(*texts), lambda index: None)


def test_public_functions_of_the_file_are_its_parts(tmp_path: Path) -> None:
    text = (
        "import math\nfrom os.path import join\nfrom math import sqrt\n"
        "class Helper:\n    def public(self): pass\nCONSTANT = 3\ndef _private(item): return 0\n"
        "def one(item): return 1\nlam = lambda item: 2\n"
        "async def coroutine(item): return 1\ndef two_arguments(a, b): return 1\ndef none(): return 1\n"
        "def with_default(item, scale=2): return scale\ndef any_(*args): return 1\ndef keyword(*, item): return 1\n"
    )
    parts = load_parts([written(tmp_path, text)])
    assert {name for name, part in parts.items() if not part.flaw} == {"one", "lam", "with_default"}
    assert {name for name, part in parts.items() if part.flaw} == {
        *("coroutine", "two_arguments", "none", "any_", "keyword")
    }
    assert parts["one"].line == 8


@pytest.mark.parametrize(
    ("parameter", "group"),
    [
        ("item", False),
        ("items", True),
        ("x: list[RewardInput]", True),
        ("x: 'list[RewardInput]'", True),
        ("x: Sequence[RewardInput]", True),
        ("x: typing.List", True),
        ("x: RewardInput", False),
        ("items: RewardInput", False),
    ],
)
@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_a_list_of_completions_where_the_parameter_says_so(
    tmp_path: Path, parameter: str, group: bool, future: str
) -> None:
    head = "import typing\nfrom collections.abc import Sequence\nfrom grpo_gsm8k.grading.rewards import RewardInput\n"
    parts = load_parts([written(tmp_path, f"{future}{head}def part({parameter}): return 1\n")])
    assert parts["part"].takes_group is group


def test_adapted_functions_are_parts_by_their_name_in_the_file(tmp_path: Path) -> None:
    text = f"{TRL}def _f(completions, **kw): return [1.0] * len(completions)\nmine = trl_reward(_f)\n"
    text += "@trl_reward\ndef other(prompts, completions, **kw): return [2.0] * len(completions)\n"
    parts = load_parts([written(tmp_path, text)])
    assert set(parts) == {"mine", "other"}
    assert call_part(parts["other"], inputs("a", "b"), lambda index: None).values == [2.0, 2.0]


@pytest.mark.parametrize("name", ["benim ödülüm.py", "2-rewards.v1.py", "json.py"])
def test_names_of_files_are_free(tmp_path: Path, name: str) -> None:
    assert set(load_parts([written(tmp_path, "def ödül(item): return 1\n", name)])) == {"ödül"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(item) return 1\n", r"^mine\.py line 1: SyntaxError: expected ':'"),
        ("x = 1\n\nraise ValueError('bad\\nday')\n", r"^mine\.py line 3: ValueError: bad day$"),
        ("import missing_module\n", r"^mine\.py line 1: ModuleNotFoundError: .*'missing_module' \(a rewards file runs"),
        ("from . import sibling\n", r"^mine\.py line 1: ImportError: .*no known parent package \(a rewards file runs"),
        ("\nimport sys\nsys.exit('bye')\n", r"^mine\.py line 3: SystemExit: bye"),
        ("x = 1\n", r"^mine\.py defines no public function"),
        ("", r"^mine\.py defines no public function"),
        ("def f(item):\n\x00", r"^mine\.py.*: source code.*null bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_parts([written(tmp_path, text)])
    assert "\n" not in str(caught.value)


def test_a_name_in_two_files_is_refused(tmp_path: Path) -> None:
    files = [written(tmp_path, "def f(item): return 1\n", name) for name in ("a.py", "b.py")]
    with pytest.raises(UserError, match=r"f is defined in a\.py and in b\.py"):
        load_parts(files)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), (-0.5, -0.5), (np.float32(0.5), 0.5), (np.int64(3), 3.0), (Fraction(1, 4), 0.25), (np.array(2), 2.0)],
)
def test_numbers_of_any_library(value: Any, expected: float) -> None:
    assert called(lambda item: value, "a") == PartValues([expected], {})
    assert called(lambda items: [value, value], "a", "b", takes_group=True) == PartValues([expected] * 2, {})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "returned nan, which is not finite"),
        (float("-inf"), "returned -inf, which is not finite"),
        (10**400, "returned inf, which is not finite"),
        (None, "returned None, not a number"),
        (True, "returned True, not a number"),
        (np.bool_(True), "returned True, not a number"),
        ("1.0", "returned a str, not a number"),
        (1j, "returned a complex, not a number"),
        ([1.0], "returned a list, not a number (a function whose parameter is called items"),
    ],
)
def test_everything_else_is_a_failure_of_that_completion(value: Any, reason: str) -> None:
    found = called(lambda item: value if item.text == "bad" else 1.0, "good", "bad")
    assert found.values == [1.0, 0.0]
    assert list(found.failed) == [1]
    assert found.failed[1].startswith(reason)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1.0], "returned 1 values for 2 completions"),
        ([1.0] * 3, "returned 3 values for 2 completions"),
        ([], "returned 0 values for 2 completions"),
        (1.0, "returned a float for a list of 2 completions, not a list of 2 numbers"),
        (None, "returned None for a list"),
        ([1.0, float("nan")], "returned nan at index 1, which is not finite"),
        ([None, 1.0], "returned None at index 0, not a number"),
        (np.zeros((2, 2)), "returned a list at index 0, not a number"),
    ],
)
def test_a_group_fails_as_one(value: Any, reason: str) -> None:
    found = called(lambda items: value, "a", "b", takes_group=True)
    assert found.values == [0.0, 0.0]
    assert list(found.failed) == [-1]
    assert found.failed[-1].startswith(reason)


def test_an_array_is_a_list_of_numbers() -> None:
    assert called(lambda items: np.array([1, 2]), "a", "b", takes_group=True).values == [1.0, 2.0]


@pytest.mark.parametrize("error", [ValueError("no\ngood"), SystemExit(3), KeyboardInterrupt()])
def test_exceptions_are_failures_with_their_line(error: BaseException) -> None:
    def part(item: RewardInput) -> float:
        raise error

    reason = called(part, "a").failed[0]
    assert reason.startswith(f"test_rewards_file.py line {part.__code__.co_firstlineno + 1}: {type(error).__name__}")
    assert "\n" not in reason


def test_changes_of_the_input_stay_in_one_call() -> None:
    def part(item: RewardInput) -> float:
        item.problem.extra["steps"].append("changed")
        return len(item.extra["steps"])

    assert called(part, "a", "b").values == [2.0, 2.0]
    assert PROBLEM.extra == {"steps": ["2 + 3"]}
    frozen = called(lambda item: setattr(item, "text", "other"), "a").failed[0]
    assert "FrozenInstanceError" in frozen
