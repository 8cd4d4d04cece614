"""The interface between the actor's main loop and a generation engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.transport.protocol import Failed, GenerateGroup, GroupResult, WeightsLive
    from grpo_gsm8k.transport.weights import VerifiedWeights


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Settings from which an actor process builds its engine."""

    kind: str  # "vllm" or "scripted"
    model_folder: str
    device: str
    dtype: str
    gpu_memory: float
    kv_cache_mb: int
    max_model_len: int
    max_num_seqs: int
    max_batched_tokens: int
    enforce_eager: bool
    prefix_caching: bool
    lora_rank: int  # 0: whole models are published
    lora_versions: int  # adapters that may be in use at once
    canary_tolerance: float
    seed: int
    async_scheduling: bool = False  # prepare the next step while the device computes the present one
    sleeps: bool = False  # whenever nothing is left to do, its GPU memory is free for another process
    kv_cache_bytes: int | None = None  # on a GPU: size of the KV cache; None: what `gpu_memory` leaves
    tensor_parallel: int = 1  # GPUs, or processes on a CPU, that share the model
    scripted_lengths: str = "uniform"  # of the scripted engine; or "lognormal"
    own_version: int = -1  # version number of the folder's own weights; -1: generate nothing before the first `load`


class Engine(Protocol):
    """A continuous-batching generator whose weights can be swapped between two steps."""

    def add(self, request: GenerateGroup) -> None:
        """Start a request; a later `step` returns its result. Raises ValueError if it cannot be served."""

    def step(self) -> Sequence[GroupResult | Failed | WeightsLive]:
        """Sample one token for every running sequence; returns finished groups, and WeightsLive after a `load`.

        Raises WeightsError when the running weights are not the loaded ones.
        """

    def load(self, verified: VerifiedWeights) -> None:
        """Swap the weights under the running requests. One of the next steps returns WeightsLive for them.

        The files were verified before, because a failed swap cannot be undone. Raises WeightsError when the engine does
        not run what the files hold.
        """

    def abort(self, request_ids: Sequence[str]) -> None:
        """Drop these requests, running or not."""

    def sleep(self) -> None:
        """Free the device's memory until `wake`. Only called without any request, and if `EngineSpec.sleeps`."""

    def wake(self) -> None:
        """Take the memory again, with the weights that were live. Raises RuntimeError if it is not free."""

    def gpu_bytes(self) -> int:
        """Return how much GPU memory the engine holds; 0 on a CPU."""
