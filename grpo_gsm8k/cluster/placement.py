"""Where engines run: on this machine, or on the machines of a Ray cluster."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.runtime.actor_process import spawn_actor
from grpo_gsm8k.transport import weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from grpo_gsm8k.actor.engine import EngineSpec
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.runtime.process import Deliver, Worker
    from grpo_gsm8k.transport.protocol import WeightsRef


class Placement(Protocol):
    """Starts actors, and deletes weights wherever they are."""

    def spawn_actor(self, config: Config, spec: EngineSpec, logs: Path, index: int, deliver: Deliver) -> Worker | None:
        """Start the actor process `actor-<index>`; None if there is no place for it now."""

    def delete(self, ref: WeightsRef) -> None:
        """Delete weights that no actor may load anymore."""

    def discard(self, ref: WeightsRef) -> None:
        """Delete damaged weights."""


class LocalPlacement:
    """All actors on this machine."""

    def spawn_actor(self, config: Config, spec: EngineSpec, logs: Path, index: int, deliver: Deliver) -> Worker | None:
        """Start the actor process `actor-<index>`."""
        return spawn_actor(config, spec, logs, index, deliver)

    def delete(self, ref: WeightsRef) -> None:
        """Delete weights that no actor may load anymore."""
        weights.delete(ref)

    def discard(self, ref: WeightsRef) -> None:
        """Delete damaged weights."""
        weights.discard(ref)


@contextmanager
def open_placement(config: Config, owner: Path) -> Iterator[Placement]:
    """Connect to the cluster, if one is configured; `owner` is the folder whose name its folders there get.

    Raises UserError if Ray is not installed or the cluster cannot be reached.
    """
    if config.cluster.kind == "local":
        yield LocalPlacement()
        return
    try:
        import ray  # noqa: F401 - lazy: an optional dependency
    except ModuleNotFoundError:
        raise UserError("cluster=ray needs Ray: pip install 'grpo-gsm8k[cluster]', or pip install ray") from None
    from grpo_gsm8k.cluster.ray_placement import RayPlacement

    with RayPlacement(config, owner) as placement:
        yield placement
