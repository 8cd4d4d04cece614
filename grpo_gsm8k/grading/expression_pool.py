"""Expressions read and compared in killable children: some take forever, or all memory, to evaluate.

An answer whose evaluation reaches a limit is not correct. Results are kept by the two texts.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.children.child_pool import ChildPool
from grpo_gsm8k.children.limited_child import ChildError, Limits
from grpo_gsm8k.errors import LabError, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

MODULE = "grpo_gsm8k.grading.expression_child"
# A comparison takes milliseconds, simplification of an answer from MATH at most a second.
LIMITS = Limits(wall_s=50.0, memory_mb=1024, cpu_s=5.0)
MAX_CHILDREN = 4  # each takes 100 MB
MAX_KEPT = 100_000
_SHOWN = 60  # characters of a text in a message


@dataclass(frozen=True, slots=True)
class ExpressionVerdict:
    """The verdict on one answer. `value` is None if it is unreadable; `failed` names the limit that ended it."""

    value: str | None
    correct: bool
    bad_gold: bool = False
    failed: str | None = None


class ExpressionPool:
    """Children that compare expressions, started when they are first needed. Thread-safe."""

    def __init__(self, limits: Limits = LIMITS, size: int | None = None) -> None:
        """`size` is the number of children; None: one per core that this process may use, up to four."""
        size = size or min(MAX_CHILDREN, len(os.sched_getaffinity(0)))
        self._children = ChildPool(MODULE, (), limits, size)
        # The kernel ends a child with the thread that started it, so these threads outlive the calls.
        self._threads = ThreadPoolExecutor(size, "expressions")
        self._kept: OrderedDict[tuple[str, str | None], Future[ExpressionVerdict]] = OrderedDict()
        self._lock = threading.Lock()

    def verdicts(self, texts: Sequence[str], gold: str | None) -> list[ExpressionVerdict]:
        """Compare several answers at once; without `gold` they are only read. Raises LabError if no child starts."""
        return [future.result() for future in [self._verdict(text, gold) for text in texts]]

    @property
    def pids(self) -> list[int]:
        """Process ids of the running children."""
        return self._children.pids

    def close(self) -> None:
        """End all children at once."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._children.close()

    def _verdict(self, text: str, gold: str | None) -> Future[ExpressionVerdict]:
        key = (text, gold)
        with self._lock:
            future = self._kept.get(key)
            if future is None:
                future = self._kept[key] = self._threads.submit(self._ask, text, gold)
            self._kept.move_to_end(key)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return future

    def _ask(self, text: str, gold: str | None) -> ExpressionVerdict:
        try:
            return ExpressionVerdict(**self._children.call({"text": text, "gold": gold}))
        except ChildError as error:
            if error.kind == "start":
                raise LabError(f"the process that grades expressions does not start: {error.detail}") from None
            return ExpressionVerdict(None, correct=False, failed=error.kind)


def refuse_bad_gold(gold: str) -> UserError:
    """Return the error for a gold answer that is not an expression."""
    return UserError(
        f"the gold answer {gold[:_SHOWN]!r} is not an expression that math-verify reads: remove that problem, or set "
        "prompt.answer_kind=text"
    )
