"""Asynchronous validation: every item, greedy decoding, pinned to one version and recorded under it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
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
    from grpo_gsm8k.transport.protocol import GroupResult


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
        self.waited_s = 0.0  # how long the last `wait` waited for answers
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
        pending = self._pending[version] = _Pending(time.monotonic())
        self._client.report(ValidationStarted(version))
        for index, item in enumerate(self._items):
            self._client.request(self._request(version, index, item), partial(self._start_grading, pending, index))

    def drain(self) -> None:
        """Report the validations that are complete. Never waits."""
        self._client.poll()
        for version, pending in list(self._pending.items()):
            if self._answered(pending) and all(grading.done() for grading in pending.gradings.values()):
                self._finish(version)

    def wait(self, at_most: int = 0) -> None:
        """Wait until at most `at_most` validations are in progress, or the run has to stop."""
        self.waited_s = 0.0
        for version, pending in list(self._pending.items())[: len(self._pending) - at_most]:
            answered = self._client.wait_until(partial(self._answered, pending))
            self.waited_s += self._client.record_span("wait for validations", version)
            if not answered:
                return
            self._finish(version)
            self._client.record_span("validation results", version)

    def _answered(self, pending: _Pending) -> bool:
        return len(pending.gradings) == len(self._items)

    def _start_grading(self, pending: _Pending, index: int, result: GroupResult) -> None:
        pending.gradings[index] = self._task.start_grading(self._items[index], result.completions)

    def _finish(self, version: int) -> None:
        pending = self._pending.pop(version)
        graded = [g for index in range(len(self._items)) for g in self._client.wait_for(pending.gradings[index])]
        versions = {span.version for g in graded for span in g.completion.version_spans}
        assert versions == {version}, f"validation of version {version} was generated with {sorted(versions)}"
        self._record(version, graded, time.monotonic() - pending.started)

    def _record(self, version: int, graded: list[GradedCompletion], seconds: float) -> None:
        """Report and save the graded items of a validation that took `seconds`."""
        summary = scoring.summarize([g.graded for g in graded], self._config.seed)
        self.accuracy[version] = summary.accuracy
        rollout_files.write_validation(self._folder / f"step_{version}.parquet", graded)
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
            # After the last rollouts that this version may generate: the learner waits for them, and computes the
            # update that they belong to while the validation keeps the engine at this version.
            priority=2 * (version + self._config.policy_gradient.max_staleness) + 1,
        )
