"""A clock that jumps from event to event."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class SimulatedClock:
    """Time in seconds from 0, and what is to happen when. Events at the same time happen in the order of planning."""

    def __init__(self) -> None:
        """Nothing is planned."""
        self._now = 0.0
        self._planned: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def __call__(self) -> float:
        """Return the present time, as time.monotonic does for the real processes."""
        return self._now

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Plan an action; a time that is over means now."""
        self._count += 1
        heapq.heappush(self._planned, (max(time, self._now), self._count, action))

    def advance(self) -> bool:
        """Go to the next event and let it happen; False if nothing is planned."""
        if not self._planned:
            return False
        self._now, _, action = heapq.heappop(self._planned)
        action()
        return True

    def sleep(self, seconds: float) -> None:
        """Let everything happen that is due within so many seconds, and go to their end."""
        end = self._now + seconds
        while self._planned and self._planned[0][0] <= end:
            self.advance()
        self._now = end
