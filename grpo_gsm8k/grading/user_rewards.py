"""A user's reward functions, called in child processes within limits of time and memory."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from grpo_gsm8k.children.child_pool import ChildPool
from grpo_gsm8k.children.limited_child import ChildError, Limits
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.rewards import RESERVED_NAMES, SHIPPED_PARTS, validate_reward_weights
from grpo_gsm8k.grading.rewards_child import encode_group

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from grpo_gsm8k.grading.rewards import RewardInput

OnError = Literal["stop", "zero"]
MODULE = "grpo_gsm8k.grading.rewards_child"
START_SECONDS = 60.0  # for Python's start and the imports of the files, besides the time of a group
_START_ERROR = "UserError: "  # how a child reports that a file cannot be loaded
OFFLINE = ("unreachable", "name resolution")  # in the errors of connections without a network
_KEY = "policy_gradient.rewards_file"


@dataclass(frozen=True, slots=True)
class RewardLimits:
    """Limits of one child. `timeout_s`: for all functions on the completions of one prompt; `network`: allowed."""

    timeout_s: float
    memory_mb: int
    on_error: OnError
    seed: int
    network: bool = False


@dataclass(frozen=True, slots=True)
class ListedPart:
    """A function as its child describes it; `flaw` is why it cannot be a part, or empty."""

    name: str
    file: str
    line: int
    flaw: str


@dataclass(frozen=True, slots=True)
class GroupValues:
    """Values by part, one per completion; `failed` has the indices of completions that got 0 instead."""

    values: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, frozenset[int]] = field(default_factory=dict)


class UserRewards:
    """The functions of rewards files. Thread-safe: several groups are scored at a time, each in its own child."""

    def __init__(
        self,
        files: Sequence[Path],
        limits: RewardLimits,
        environment: Mapping[str, str],
        children: int,
        report: Callable[[str, str], None] = lambda part, reason: None,
    ) -> None:
        """`report` is called with part and reason for the first failure of each part, and not for those after it."""
        self._limits = limits
        self._report = report
        self._reported: Counter[str] = Counter()
        self._lock = threading.Lock()
        start_s = START_SECONDS + limits.timeout_s
        child_limits = Limits(limits.timeout_s, limits.memory_mb, start_s=start_s, network=limits.network)
        arguments = [str(limits.seed), *map(str, files)]
        self._pool = ChildPool(MODULE, arguments, child_limits, children, {**environment, "PYTHONHASHSEED": "0"})

    def close(self) -> None:
        """End the children."""
        self._pool.close()

    def check(self, weights: Mapping[str, float]) -> None:
        """Import the files in a child and compare their functions with the configured weights. Raises UserError."""
        try:
            listed = [ListedPart(*fields) for fields in self._pool.call(None)]
        except ChildError as error:
            raise _not_loaded(error) from None
        for part in listed:
            if part.name in SHIPPED_PARTS:
                raise UserError(
                    f"{_KEY}: {part.file} defines {part.name}, which is a shipped part: rename the function"
                )
            if part.name in RESERVED_NAMES:
                raise UserError(f"{_KEY}: {part.file} defines {part.name}, whose metric has another meaning: rename it")
            if part.flaw and part.name in weights:
                raise UserError(f"{_KEY}: {part.file} line {part.line}: {part.name}: {part.flaw}")
        validate_reward_weights(weights, [part.name for part in listed if not part.flaw])
        for file in {part.file: None for part in listed}:
            names = [part.name for part in listed if part.file == file]
            if not set(names) & set(weights):
                shown = ", ".join(names)
                raise UserError(f"{_KEY}: policy_gradient.rewards weighs no function of {file} ({shown}): add one")

    def score(self, parts: Sequence[str], items: Sequence[RewardInput]) -> GroupValues:
        """Return the values of parts for the completions of one prompt.

        A part that ends its child (time, memory, exit) fails for all of them, and the others are computed again.
        Raises UserError for a failure unless it counts as 0.
        """
        result = GroupValues()
        remaining = list(parts)
        while remaining:
            try:
                answer = self._call(remaining, items)
            except _Killed as death:
                name = remaining.pop(death.part)
                self._failure(name, death.reason, items, death.completion)
                answer = {"values": {name: [0.0] * len(items)}, "failed": {name: [[-1, death.reason]]}}
            else:
                remaining = []
            for name, reasons in answer["failed"].items():
                for index, reason in reasons:
                    self._failure(name, reason, items, index)
                indices = {index for index, _ in reasons}
                result.failed[name] = frozenset(range(len(items)) if -1 in indices else indices)
            result.values.update(answer["values"])
        return result

    def _call(self, parts: Sequence[str], items: Sequence[RewardInput], again: bool = True) -> Any:
        """Return the child's answer. `again`: try once more if the child had ended while it was idle."""
        with tempfile.NamedTemporaryFile(prefix="rewards_progress_") as progress:
            request = encode_group(parts, items, progress.name, stop=self._limits.on_error == "stop")
            try:
                return self._pool.call(request, keep=lambda answer: not answer["failed"])
            except ChildError as error:
                at = progress.read().split()
                if error.kind == "start":
                    raise _not_loaded(error) from None
                if not at and again and error.kind == "exit":
                    return self._call(parts, items, again=False)
                if not at:
                    raise UserError(f"{_KEY}: {_reason(error)} before any function was called") from None
                raise _Killed(int(at[0]), int(at[1]), _reason(error)) from None

    def _failure(self, name: str, reason: str, items: Sequence[RewardInput], index: int) -> None:
        """Raise UserError, or report the first failure of a part if failures count as 0."""
        where = f"completion {index + 1} of {len(items)}" if index >= 0 else f"all {len(items)} completions"
        text = f"failed for item {items[0].problem.id}, {where}: {reason}"
        if self._limits.on_error == "stop":
            fix = "fix the function, or set policy_gradient.rewards_on_error=zero"
            if not self._limits.network and any(words in reason for words in OFFLINE):
                fix = "if it may use the network, set policy_gradient.rewards_network=true"
            raise UserError(f"policy_gradient.rewards.{name} {text}; {fix}")
        with self._lock:
            self._reported[name] += 1
            first = self._reported[name] == 1
        if first:
            self._report(name, text)


class _Killed(Exception):
    """A child was ended while it computed a part; `completion` is -1 for a function of a whole group."""

    def __init__(self, part: int, completion: int, reason: str) -> None:
        super().__init__(reason)
        self.part = part
        self.completion = completion
        self.reason = reason


def _reason(error: ChildError) -> str:
    keys = {"time": "policy_gradient.rewards_timeout_s", "memory": "policy_gradient.rewards_memory_mb"}
    return f"{error.detail} ({keys[error.kind]})" if error.kind in keys else error.detail


def _not_loaded(error: ChildError) -> UserError:
    detail = error.detail.removeprefix(_START_ERROR)
    return UserError(f"{_KEY}: {detail if detail != error.detail else 'loading failed: ' + _reason(error)}")
