"""Verification of published weights in a thread."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import WeightsError
from grpo_gsm8k.transport import weights
from grpo_gsm8k.transport.protocol import WeightsDamaged

if TYPE_CHECKING:
    from grpo_gsm8k.transport.protocol import WeightsRef


class Verifier:
    """Verifies one version at a time. Reading and hashing release the interpreter's lock for the engine."""

    def __init__(self) -> None:
        """The thread starts with the first version."""
        self._thread = ThreadPoolExecutor(1, "verify")
        self._result: Future[weights.VerifiedWeights | WeightsDamaged] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a version was started and not yet taken or dropped."""
        return self._result is not None

    def start(self, ref: WeightsRef) -> None:
        """Begin to verify `ref`, instead of the version that was started before."""
        self.drop()
        self._result = self._thread.submit(_verify, ref)

    def wait(self, seconds: float) -> None:
        """Return when the result is there, or after `seconds`."""
        if self._result is not None:
            wait([self._result], seconds)

    def take(self) -> weights.VerifiedWeights | WeightsDamaged | None:
        """Return the verified weights, or that they are damaged, once; None before that is known."""
        if self._result is None or not self._result.done():
            return None
        result, self._result = self._result, None
        return result.result()

    def drop(self) -> None:
        """Forget the version that was started; its result does not matter anymore."""
        if self._result is not None:
            self._result.cancel()
            self._result = None


def _verify(ref: WeightsRef) -> weights.VerifiedWeights | WeightsDamaged:
    try:
        return weights.verify(ref)
    except WeightsError as error:
        return WeightsDamaged(ref, str(error))
