"""When messages arrive: at once on the learner's machine, after a copy of the weights on others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.transport.protocol import Bundle, LoadWeights

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpo_gsm8k.planning.rates import Network
    from grpo_gsm8k.planning.simulated_clock import SimulatedClock
    from grpo_gsm8k.transport.protocol import WeightsRef


class SimulatedNetwork:
    """The learner's machine sends each version to every other machine once; all of them have it at the same time.

    They share its connection equally, as TCP streams do. A bundle with weights waits for their copy, and what is sent
    to the same actor later waits behind it (`NodeWriter`).
    """

    def __init__(self, network: Network, actors: int, clock: SimulatedClock) -> None:
        """Copy nothing yet. If `gbit_s` is given, all engines are on other machines."""
        self.busy_s = 0.0
        self._network = network
        self._clock = clock
        self._machines = 0 if network.gbit_s is None else -(-actors // network.engines_per_machine)
        self._copied_at: dict[WeightsRef, float] = {}
        self._free_at = 0.0
        self._sent_at = [0.0] * actors  # when the last message to each actor is there

    def send(self, index: int, message: object, deliver: Callable[[object], None]) -> None:
        """Deliver a message to an actor when it is there."""
        due = self._clock()
        for part in message.messages if isinstance(message, Bundle) else ():
            if isinstance(part, LoadWeights):
                due = max(due, self._copy(part.ref))
        self._sent_at[index] = max(due, self._sent_at[index])
        self._clock.at(self._sent_at[index] + self._network.message_s, lambda: deliver(message))

    def _copy(self, ref: WeightsRef) -> float:
        """Return when all machines have these weights."""
        if ref not in self._copied_at:
            seconds = self._machines * self._network.copy_s
            self.busy_s += seconds
            self._free_at = max(self._clock(), self._free_at) + seconds
            self._copied_at[ref] = self._free_at
        return self._copied_at[ref]
