"""Engines for commands that only generate: one model, many requests, each answered once though an engine may die."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import LabError, UserError, WorkerError
from grpo_gsm8k.runtime.actor_process import engine_spec, spawn_actor
from grpo_gsm8k.runtime.router import Hub
from grpo_gsm8k.transport.protocol import Bundle, Crashed, Failed, GroupResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.runtime.process import Worker
    from grpo_gsm8k.transport.protocol import GenerateGroup

VERSION = 0  # the weights of the folder: nothing is trained here
POLL_SECONDS = 0.2


class Engines:
    """`actors` engine processes with the model of one folder; use it in a `with` statement."""

    def __init__(self, config: Config, model_folder: Path, logs: Path, actors: int) -> None:
        """Starts nothing yet; `logs` is an existing folder."""
        self._config = config
        self._spec = engine_spec(config, model_folder, lora_rank=0, lora_versions=1, own_version=VERSION)
        self._logs = logs
        self._events: queue.SimpleQueue[tuple[Worker, object]] = queue.SimpleQueue()
        self._arrived: list[GroupResult | Failed] = []
        self._hub = Hub(actors, self._send, self._arrive, lambda _: None)
        self._count = actors
        self._actors: list[Worker] = []
        self._last_words: dict[Worker, Crashed] = {}
        self.restarts = 0

    def __enter__(self) -> Self:
        """Start the engines."""
        self._actors = [self._spawn(index) for index in range(self._count)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them."""
        for worker in self._actors:
            worker.kill()

    def run(self, requests: Sequence[GenerateGroup]) -> Iterator[GroupResult | Failed]:
        """Answers in the order in which they are done. Raises WorkerError when an engine cannot be kept alive."""
        self._hub.from_learner(Bundle(tuple(requests)))
        while self._hub.outstanding or self._arrived:
            yield from self._take()
            self._handle_next()
            for worker in list(self._actors):
                if reason := worker.overdue():
                    self._lost(worker, reason)
        yield from self._take()

    def _take(self) -> list[GroupResult | Failed]:
        arrived, self._arrived = self._arrived, []
        return arrived

    def _handle_next(self) -> None:
        if self._arrived:
            return
        try:
            worker, message = self._events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return
        if worker not in self._actors:
            return  # it was replaced
        worker.heard(message)
        if isinstance(message, Crashed):
            self._last_words[worker] = message
        elif message is None:
            self._lost(worker, "")
        elif isinstance(message, GroupResult | Failed):
            self._hub.from_actor(self._actors.index(worker), message)

    def _lost(self, worker: Worker, reason: str) -> None:
        """An engine died or is stuck: a new one gets what it owed."""
        worker.kill()
        words = self._last_words.pop(worker, None)
        if words is not None and words.fatal:
            raise (UserError if words.user_error else LabError)(words.error)
        why = reason or (words.error if words else f"exit code {worker.process.exitcode}")
        self.restarts += 1
        if self.restarts > self._config.actor.max_restarts:
            raise WorkerError(f"{worker.name} failed {self.restarts} times (limit actor.max_restarts): {why}")
        index = self._actors.index(worker)
        self._actors[index] = self._spawn(index)
        self._hub.actor_restarted(index)

    def _spawn(self, index: int) -> Worker:
        return spawn_actor(self._config, self._spec, self._logs, index, lambda worker, m: self._events.put((worker, m)))

    def _send(self, index: int, message: object) -> None:
        self._actors[index].channel.send(message)

    def _arrive(self, message: object) -> None:
        assert isinstance(message, GroupResult | Failed)
        self._arrived.append(message)
