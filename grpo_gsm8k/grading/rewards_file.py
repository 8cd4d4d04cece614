"""The functions of a user's rewards files: loading, calling, and checking what they return. Used in a child process."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import math
import numbers
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.trl_rewards import TrlReward

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from grpo_gsm8k.grading.rewards import RewardInput

GROUP_PARAMETER = "items"
_LIST = re.compile(r"(?:\w+\.)*(?:list|List|Sequence|Iterable|Collection)\b")
_SHOWN = 300  # characters of an exception's text in a message


@dataclass(frozen=True, slots=True)
class UserPart:
    """A public function of a rewards file. `flaw`: why it cannot be a part, or an empty string."""

    name: str
    file: str
    line: int
    function: Callable[..., Any]
    takes_group: bool
    flaw: str


@dataclass(frozen=True, slots=True)
class PartValues:
    """Values of one part, one per completion; those that `failed` are 0, with the reason by index."""

    values: list[float]
    failed: dict[int, str]


def load_parts(paths: Sequence[Path]) -> dict[str, UserPart]:
    """Import the files and return their public functions by name. Raises UserError with file and line."""
    parts: dict[str, UserPart] = {}
    for index, path in enumerate(paths):
        found = _parts_of(_imported(path, f"rewards_file_{index}"), path)
        if not found:
            raise UserError(f"{path.name} defines no public function: write `def my_part(item): return ...` in it")
        for part in found:
            if part.name in parts:
                raise UserError(f"{part.name} is defined in {parts[part.name].file} and in {part.file}: rename one")
            parts[part.name] = part
    return parts


def call_part(part: UserPart, items: Sequence[RewardInput], note_item: Callable[[int], None]) -> PartValues:
    """Call a part for the completions of one prompt; `note_item` is called before each with its index.

    Every call gets its own copy of the data, so a function that changes its input does not affect others. A group
    function fails for all completions at once, under the key -1. Raises MemoryError.
    """
    if part.takes_group:
        note_item(-1)
        values, reason = _outcome(part, [_own_copy(item) for item in items], lambda v: _numbers(v, len(items)))
        return PartValues([0.0] * len(items), {-1: reason}) if values is None else PartValues(values, {})
    result = PartValues([], {})
    for index, item in enumerate(items):
        note_item(index)
        value, reason = _outcome(part, _own_copy(item), _number)
        result.values.append(0.0 if value is None else value)
        if value is None:
            result.failed[index] = reason
    return result


def _outcome(part: UserPart, argument: Any, read: Callable[[Any], Any]) -> tuple[Any, str]:
    """Return the checked result of one call, or None and the reason why there is none."""
    try:
        found = part.function(argument)
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - sys.exit() too: the parent decides what a failure means
        return None, describe(error, part.file)
    try:
        return read(found), ""
    except ValueError as error:
        return None, str(error)


def describe(error: BaseException, file: str) -> str:
    """Return an exception as one line, with the last line of the user's file that it came through."""
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError) and Path(error.filename or "").name == file:
        return f"{file} line {error.lineno}: {type(error).__name__}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name == file]
    where = f"{file} line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}{': ' if text else ''}{text[:_SHOWN]}"


def _imported(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # the name ends in .py: see `RewardsFiles`
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a file, too
        hint = ""
        if isinstance(error, ImportError):
            hint = " (a rewards file runs as a copy: it can import installed packages, but no files next to it)"
        text = describe(error, path.name)
        name = "" if text.startswith(path.name) else f"{path.name}: "
        raise UserError(f"{name}{text}{hint}") from None
    return module


def _parts_of(module: ModuleType, path: Path) -> list[UserPart]:
    own = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (isinstance(value, TrlReward) or (inspect.isfunction(value) and value.__module__ == module.__name__))
    }
    return [_part(name, value, path) for name, value in own.items()]


def _part(name: str, value: Any, path: Path) -> UserPart:
    if isinstance(value, TrlReward):
        code = getattr(value.function, "__code__", None)
        return UserPart(name, path.name, code.co_firstlineno if code else 1, value, takes_group=True, flaw="")
    required, flaw = _parameters(value)
    group = bool(required) and _takes_group(required[0])
    return UserPart(name, path.name, value.__code__.co_firstlineno, value, group, flaw)


def _parameters(function: Callable[..., Any]) -> tuple[list[inspect.Parameter], str]:
    """Return the positional parameters, and the reason why a call with one argument is not possible."""
    found = list(inspect.signature(function).parameters.values())
    positional = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in found if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        return positional, "it is a coroutine or a generator: return a number"
    if not positional or len(required) > 1 or (required and required[0] is not positional[0]):
        return positional, (
            "it does not take exactly one argument: write `def part(item)`, or adapt a function of TRL's signature "
            "with grpo_gsm8k.grading.trl_rewards.trl_reward"
        )
    return positional, ""


def _takes_group(parameter: inspect.Parameter) -> bool:
    """Whether a parameter is annotated as a list, or called `items` without an annotation."""
    if parameter.annotation is parameter.empty:
        return parameter.name == GROUP_PARAMETER
    given = parameter.annotation
    return bool(_LIST.match(given.strip("'\"") if isinstance(given, str) else inspect.formatannotation(given)))


def _own_copy(item: RewardInput) -> RewardInput:
    if not item.extra:
        return item
    return replace(item, problem=replace(item.problem, extra=copy.deepcopy(dict(item.extra))))


def _numbers(value: Any, count: int) -> list[float]:
    if hasattr(value, "tolist"):  # an array
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise ValueError(f"returned {_shown(value)} for a list of {count} completions, not a list of {count} numbers")
    if len(value) != count:
        raise ValueError(f"returned {len(value)} values for {count} completions")
    return [_number(each, f" at index {index}") for index, each in enumerate(value)]


def _number(value: Any, where: str = "") -> float:
    if hasattr(value, "tolist"):  # a number of numpy or torch
        value = value.tolist()
    if isinstance(value, list | tuple):
        raise ValueError(
            f"returned {_shown(value)}{where}, not a number (a function whose parameter is called {GROUP_PARAMETER} or "
            "annotated as a list, gets all completions of a prompt at once)"
        )
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"returned {_shown(value)}{where}, not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"returned {number}{where}, which is not finite")
    return number


def _shown(value: object) -> str:
    return str(value) if value is None or isinstance(value, bool) else f"a {type(value).__name__}"
