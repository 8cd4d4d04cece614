"""How much of their time the actors are idle."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.runtime.process import Worker


class IdleTime:
    """Idle time of the actors between two policy updates, by the actors' own clocks."""

    def __init__(self) -> None:
        self._before: dict[Worker, tuple[float, float]] = {}  # busy seconds and clock at the previous measurement

    def start(self, actors: Sequence[Worker]) -> None:
        """Begin to measure, unless begun already; the engines' start-up does not count as idle time."""
        if not self._before:
            self.metrics(actors)

    def metrics(self, actors: Sequence[Worker]) -> dict[str, float]:
        """Return the idle fraction since the previous call; empty if no heartbeat came or no actor was there then."""
        now = {actor: (actor.beat.busy_s, actor.beat.clock) for actor in actors if actor.beat.clock}
        both = [(*now[actor], *self._before[actor]) for actor in now if actor in self._before]
        seconds = sum(clock - clock_before for _, clock, _, clock_before in both)
        if now and not (both and seconds <= 0):
            self._before = now
        if seconds <= 0:
            return {}
        busy_s = sum(busy - busy_before for busy, _, busy_before, _ in both)
        return {"time/actor_idle_frac": min(1.0, max(0.0, 1 - busy_s / seconds))}
