"""The times in which an engine on a shared GPU sleeps, so that the learner can use its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.transport.protocol import WeightsLive

if TYPE_CHECKING:
    from grpo_gsm8k.actor.engine import Engine
    from grpo_gsm8k.transport.channel import Channel


class Rest:
    """Holds results back until the engine sleeps: the first one may let the learner take the engine's memory.

    So with a validation beside an update's rollouts, the learner gets both when both are done. Without `sleeps` every
    result is sent at once, and the engine stays awake.
    """

    def __init__(self, engine: Engine, channel: Channel, sleeps: bool) -> None:
        """The engine is awake."""
        self._engine = engine
        self._channel = channel
        self._sleeps = sleeps
        self._asleep = False
        self._held: list[object] = []

    def send(self, result: object) -> None:
        """Send a result of the engine, now or when the engine sleeps."""
        if self._sleeps and not isinstance(result, WeightsLive):
            self._held.append(result)
        else:
            self._channel.send(result)

    def begin(self) -> None:
        """Let the engine sleep, as nothing is left to do, then send what was held back."""
        if not self._sleeps:
            return
        if not self._asleep:
            self._engine.sleep()
            self._asleep = True
        for result in self._held:
            self._channel.send(result)
        self._held.clear()

    def end(self) -> None:
        """Wake the engine if it sleeps. Raises RuntimeError if its memory is not free."""
        if self._asleep:
            self._engine.wake()
            self._asleep = False

    def drop_results(self) -> None:
        """Forget what was held back: the learner that asked for it is gone."""
        self._held.clear()
