"""Asynchronous validation: every item, greedy, pinned to one version, filed under that version."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grpo_gsm8k.grading import scoring
from grpo_gsm8k.learner import rollout_files
from grpo_gsm8k.transport.protocol import GenerateGroup, SamplingSpec, ValidationDone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.task import Item, Judged, Task


@dataclass
class _Pending:
    started: float
    judged: dict[int, Judged] = field(default_factory=dict)


class Validation:
    """Requests go to the actor with the weights they validate; results are collected whenever they arrive."""

    def __init__(
        self, client: Client, task: Task, items: Sequence[Item], config: Config, updates: int, folder: Path
    ) -> None:
        """`updates` is the length of the run; `folder` gets one Parquet file per validated version."""
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
        """Versions whose validation is not finished."""
        return tuple(self._pending)

    def due(self, version: int) -> bool:
        """At the start, every `eval_every` updates, and at the end."""
        return version % self._config.training.eval_every == 0 or version == self._updates

    def submit(self, version: int) -> None:
        """Queue the validation of `version`."""
        self._pending[version] = _Pending(time.monotonic())
        for index, item in enumerate(self._items):
            self._client.queue(self._request(version, index, item))

    def drain(self) -> None:
        """Take what has arrived, report what is complete. Never waits."""
        for version in list(self._pending):
            pending = self._pending[version]
            for index, item in enumerate(self._items):
                if index not in pending.judged:
                    result = self._client.take_ready(self._request_id(version, index))
                    if result is not None:
                        pending.judged[index] = self._task.judge(item, result.completions[0])
            if len(pending.judged) == len(self._items):
                self._finish(version)

    def wait(self, at_most: int = 0) -> None:
        """Finish the oldest until no more than `at_most` are pending, unless the run is to stop."""
        for version in list(self._pending)[: len(self._pending) - at_most]:
            for index, item in enumerate(self._items):
                if index not in self._pending[version].judged:
                    result = self._client.take(self._request_id(version, index))
                    if result is None:
                        return
                    self._pending[version].judged[index] = self._task.judge(item, result.completions[0])
            self._finish(version)

    def _finish(self, version: int) -> None:
        pending = self._pending.pop(version)
        judged = [pending.judged[index] for index in range(len(self._items))]
        versions = {span.version for j in judged for span in j.completion.version_spans}
        assert versions == {version}, f"validation of version {version} was generated with {sorted(versions)}"
        summary = scoring.summarize([j.graded for j in judged], self._config.seed)
        self.accuracy[version] = summary.accuracy
        rollout_files.write_validation(self._folder / f"step_{version}.parquet", judged)
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
        )
        return GenerateGroup(
            request_id=self._request_id(version, index),
            prompt_ids=item.prompt_ids,
            n=1,
            sampling=sampling,
            min_version=version,
            pinned=True,
        )
