"""Several limited children that answer requests of any thread."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.children.limited_child import LimitedChild, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class ChildPool:
    """`size` children of one kind, started when they are first needed. Thread-safe."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        limits: Limits,
        size: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """The other arguments are those of `LimitedChild`."""
        self._children = [LimitedChild(module, arguments, limits, environment) for _ in range(size)]
        self._free: queue.LifoQueue[LimitedChild] = queue.LifoQueue()  # the last one used is warm
        for child in reversed(self._children):
            self._free.put(child)

    def call(self, request: Any, keep: Callable[[Any], bool] = lambda _: True) -> Any:
        """Return the answer of a free child; waits for one. Raises ChildError.

        A child whose answer `keep` rejects is replaced before the next request.
        """
        child = self._free.get()
        try:
            answer = child.call(request)
            if not keep(answer):
                child.close()
            return answer
        finally:
            self._free.put(child)

    @property
    def pids(self) -> list[int]:
        """Process ids of the running children."""
        return [child.pid for child in self._children if child.pid is not None]

    def close(self) -> None:
        """End all children at once; calls in progress fail."""
        for child in self._children:
            child.close()
