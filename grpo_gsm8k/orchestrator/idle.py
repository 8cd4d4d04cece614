"""How much of their time the actors are idle."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.runtime.process import Worker


class IdleTime:
    """Idle time of the actors between two policy updates, by the actors' own clocks."""

    def __init__(self) -> None:
        self._busy_s = 0.0  # sum over actors at the previous measurement
        self._clock = 0.0

    def start(self, actors: Sequence[Worker]) -> None:
        """Begin to measure, unless begun already; the engines' start-up does not count as idle time."""
        if not self._clock:
            self.metrics(actors)

    def metrics(self, actors: Sequence[Worker]) -> dict[str, float]:
        """Return the idle fraction since the previous call; empty if no heartbeat came or an actor was replaced."""
        busy_s = sum(actor.beat.busy_s for actor in actors)
        clock = sum(actor.beat.clock for actor in actors)
        busy_before, clock_before = self._busy_s, self._clock
        if clock == clock_before:
            return {}
        self._busy_s, self._clock = busy_s, clock
        if not clock_before or busy_s < busy_before:
            return {}
        return {"time/actor_idle_frac": min(1.0, max(0.0, 1 - (busy_s - busy_before) / (clock - clock_before)))}
