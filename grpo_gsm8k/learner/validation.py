"""Asynchronous validation: every item, greedy decoding, pinned to one version and recorded under it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grpo_gsm8k.grading import scoring
from grpo_gsm8k.learner import rollout_files
from grpo_gsm8k.transport.protocol import GenerateGroup, SamplingSpec, ValidationDone, ValidationStarted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.task import GradedCompletion, Item, Task


@dataclass
class _Pending:
    """One validation in progress: completions whose grading has started, by item index."""

    started: float
    gradings: dict[int, Future[tuple[GradedCompletion, ...]]] = field(default_factory=dict)


class Validation:
    """Sends requests to the actor with the weights they validate, and collects results whenever they arrive."""

    def __init__(
        self, client: Client, task: Task, items: Sequence[Item], config: Config, updates: int, folder: Path
    ) -> None:
        """`updates` is the length of the run; one Parquet file per validated version goes into `folder`."""
        self.accuracy: dict[int, float] = {}  # by version
        self._client = client
        self._task = task
        self._items = items
        self._config = config
        self._updates = updates
        self._folder = folder
        self._pending: dict[int, _Pending] = {}

    @property
    def pending(self) -> tuple[int, ...]:
        """Versions whose validation is in progress, oldest first."""
        return tuple(self._pending)

    def due(self, version: int) -> bool:
        """Whether `version` is to be validated: at the start, every `eval_every` updates, and at the end."""
        return version % self._config.training.eval_every == 0 or version == self._updates

    def submit(self, version: int) -> None:
        """Queue the requests of the validation of `version`."""
        self._pending[version] = _Pending(time.monotonic())
        self._client.report(ValidationStarted(version))
        for index, item in enumerate(self._items):
            self._client.queue(self._request(version, index, item))

    def drain(self) -> None:
        """Collect the results that have arrived, and report complete validations. Never waits."""
        for version in list(self._pending):
            pending = self._pending[version]
            for index, item in enumerate(self._items):
                if index not in pending.gradings:
                    result = self._client.take_ready(self._request_id(version, index))
                    if result is not None:
                        pending.gradings[index] = self._task.start_grading(item, result.completions)
            if len(pending.gradings) == len(self._items) and all(g.done() for g in pending.gradings.values()):
                self._finish(version)

    def wait(self, at_most: int = 0) -> None:
        """Wait until at most `at_most` validations are in progress, or the run has to stop."""
        for version in list(self._pending)[: len(self._pending) - at_most]:
            for index, item in enumerate(self._items):
                if index not in self._pending[version].gradings:
                    result = self._client.take(self._request_id(version, index))
                    if result is None:
                        return
                    self._pending[version].gradings[index] = self._task.start_grading(item, result.completions)
            self._finish(version)

    def _finish(self, version: int) -> None:
        pending = self._pending.pop(version)
        graded = [g for index in range(len(self._items)) for g in self._client.wait_for(pending.gradings[index])]
        versions = {span.version for g in graded for span in g.completion.version_spans}
        assert versions == {version}, f"validation of version {version} was generated with {sorted(versions)}"
        summary = scoring.summarize([g.graded for g in graded], self._config.seed)
        self.accuracy[version] = summary.accuracy
        rollout_files.write_validation(self._folder / f"step_{version}.parquet", graded)
        seconds = time.monotonic() - pending.started
        metrics = {**summary.metrics("val/"), "val/n": float(summary.n), "val/seconds": seconds}
        self._client.report(ValidationDone(version, metrics))

    def _request_id(self, version: int, index: int) -> str:
        return f"{self._client.incarnation}/validation/{version}/{index}"

    def _request(self, version: int, index: int, item: Item) -> GenerateGroup:
        sampling = SamplingSpec(
            temperature=0.0,
            top_p=1.0,
            max_new_tokens=self._config.training.max_new_tokens,
            seed=self._config.seed,
            stop_token_ids=self._task.stop_token_ids,
            stop_texts=self._task.stop_texts,
        )
        return GenerateGroup(
            request_id=self._request_id(version, index),
            prompt_ids=item.prompt_ids,
            n=1,
            sampling=sampling,
            min_version=version,
            pinned=True,
        )
