"""The small surface that the actor's loop needs of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.transport.protocol import Failed, GenerateGroup, GroupResult, WeightsLive, WeightsRef


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What an actor process needs to build its engine."""

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
    own_version: int = -1  # what the folder's own weights count as; -1: nothing is generated before a first `load`


class Engine(Protocol):
    """A continuous-batching generator whose weights are swapped between two steps."""

    def add(self, request: GenerateGroup) -> None:
        """Start a request; its result comes out of a later `step`. Raises ValueError if it cannot be served."""

    def step(self) -> Sequence[GroupResult | Failed | WeightsLive]:
        """Sample one token for every running sequence; returns the groups that finished, and a proof that did.

        Raises WeightsError when the loaded weights are not the ones that run.
        """

    def load(self, ref: WeightsRef) -> None:
        """Swap the weights under the running requests. One of the next steps returns the proof that they are live.

        Raises WeightsError, without touching the engine, for a folder that is damaged.
        """

    def abort(self, request_ids: Sequence[str]) -> None:
        """Forget these requests."""


def build_engine(spec: EngineSpec) -> Engine:
    """Import and start the engine that `spec` names."""
    if spec.kind == "scripted":
        from grpo_gsm8k.actor.scripted_engine import ScriptedEngine

        return ScriptedEngine(spec)
    from grpo_gsm8k.actor.vllm_engine import VllmEngine

    return VllmEngine(spec)
