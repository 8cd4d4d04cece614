"""Engines for commands that only generate: one model, many requests, one result each even if an engine dies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from grpo_gsm8k.runtime.actor_pool import ActorPool
from grpo_gsm8k.runtime.actor_process import engine_spec, spawn_actor
from grpo_gsm8k.runtime.process import EventQueue, end_workers
from grpo_gsm8k.runtime.restarts import Restarts
from grpo_gsm8k.transport.protocol import Bundle, Failed, GroupResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from grpo_gsm8k.actor.engine import EngineSpec
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.runtime.process import Deliver, Worker
    from grpo_gsm8k.transport.protocol import GenerateGroup

SpawnActor = Callable[["Config", "EngineSpec", "Path", int, "Deliver"], "Worker | None"]
VERSION = 0  # the version of the folder's own weights; no other weights are published


class Engines:
    """`actors` engine processes with the model of one folder; use it in a `with` statement."""

    def __init__(
        self,
        config: Config,
        model_folder: Path,
        logs: Path,
        actors: int,
        kv_cache_bytes: int | None = None,
        spawn: SpawnActor = spawn_actor,
    ) -> None:
        """Start nothing yet; `logs` is an existing folder. `kv_cache_bytes`: see `EngineSpec`."""
        spec = engine_spec(config, model_folder, 0, 1, own_version=VERSION, kv_cache_bytes=kv_cache_bytes)
        self._events = EventQueue()
        self._results: list[GroupResult | Failed] = []
        self._pool = ActorPool(
            actors,
            lambda index: spawn(config, spec, logs, index, self._events.deliver),
            Restarts("actor", config.actor.max_restarts, _record_nothing, backoff_s=0.0),
            self._add_result,
            delete=lambda _: None,  # nothing is published
            discard=lambda _: None,
        )

    def __enter__(self) -> Self:
        """Start the engines."""
        self._pool.start()
        self._pool.start_engines()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the engines."""
        end_workers(self._pool.actors)

    def wait_until_ready(self) -> None:
        """Wait until an engine has started. Raises WorkerError when one fails too often."""
        while not any(worker.ready for worker in self._pool.actors):
            if event := self._events.next():
                self._pool.handle(*event)
            self._pool.replace_overdue()

    def run(self, requests: Sequence[GenerateGroup]) -> Iterator[GroupResult | Failed]:
        """Yield results in the order of completion. Raises WorkerError when an engine fails too often."""
        self._pool.router.from_learner(Bundle(tuple(requests)))
        while self._pool.router.outstanding:
            if event := self._events.next():
                self._pool.handle(*event)
            self._pool.replace_overdue()
            results, self._results = self._results, []
            yield from results

    def _add_result(self, message: object) -> None:
        assert isinstance(message, GroupResult | Failed)
        self._results.append(message)


def _record_nothing(kind: str, **fields: object) -> None:
    """Generation has no events.jsonl."""
