"""Paced generation: which prompts are requested when, and the batch that a policy update consumes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.data.difficulty import Solved
from grpo_gsm8k.grading.scoring import ErrorKind
from grpo_gsm8k.learner.batching import rollout_sample
from grpo_gsm8k.learner.prompt_order import PromptOrder
from grpo_gsm8k.transport.protocol import GenerateGroup, PromptUse, SamplingSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.batching import Sample
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.prompt_order import PromptPlan
    from grpo_gsm8k.learner.task import GradedCompletion, Item, Task
    from grpo_gsm8k.transport.protocol import Completion, GroupResult

TOO_LONG = "prompt_too_long"
NO_VARIANCE = "no_variance"
SKIPPED = "skipped"  # by data.sampler=difficulty


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """All completions of one prompt in one epoch, graded; `baseline` is its greedy one, if the method has it."""

    epoch: int
    item: Item
    completions: tuple[GradedCompletion, ...]
    baseline: GradedCompletion | None = None

    @property
    def tied(self) -> bool:
        """Whether all completions have the same reward."""
        return len({graded.reward.total for graded in self.completions}) == 1

    @property
    def solved(self) -> Solved:
        """How many of the completions are right."""
        correct = sum(graded.kind is ErrorKind.CORRECT for graded in self.completions)
        return Solved(self.item.problem.id, correct, len(self.completions))


class Rollouts:
    """Requests the prompts of update k as soon as the weights of update k - max_staleness are published.

    Requests carry that version as their minimum and belong to update k from the start. So no sample is staler than the
    limit, none is dropped, and short completions do not overtake long ones into an earlier update.
    `PromptOrder` assigns prompts to updates.
    """

    def __init__(
        self,
        client: Client,
        task: Task,
        items: Sequence[Item],
        too_long: Sequence[Item],
        config: Config,
        start: int,
        plan: PromptPlan,
    ) -> None:
        """`start` is the first update, `too_long` are the prompts that are left out of every epoch."""
        self.waited_s = 0.0  # how long the last `take` waited for completions
        self.grading_s = 0.0  # how long it then waited until they were decoded and graded
        self._client = client
        self._task = task
        self._too_long = too_long
        self._pg = config.policy_gradient
        self._seed = config.seed
        self._start = start
        self._next = start
        self._last = self._pg.updates_for(len(items)) - 1
        self._prompts = len(items)
        self._order = PromptOrder(items, config, start, plan)
        self._solved: dict[int, Solved] = {}  # by position
        self._kept: dict[int, list[int]] = {}  # positions that an update trains on
        self._gradings: dict[int, Future[tuple[GradedCompletion, ...]]] = {}  # in progress, by position
        self._baselines: dict[int, Future[tuple[GradedCompletion, ...]]] = {}
        self._with_baseline = self._pg.advantage_name == "greedy_baseline"

    @property
    def plan(self) -> PromptPlan:
        """Part of a checkpoint: with it a resumed run assigns the same prompts to the same updates."""
        return self._order.plan

    @property
    def epoch(self) -> float:
        """Passes over the prompts that the finished updates have made, drawn or skipped."""
        return self._order.epoch

    def request_until(self, version: int) -> None:
        """Queue requests for every update whose completions weights `version` may generate."""
        while self._next <= min(version + self._pg.max_staleness, self._last):
            for position in self._order.draw(self._next):
                self._queue(self._next, position)
            self._next += 1

    def take(self, step: int) -> list[RolloutGroup] | None:
        """Wait for the groups of update `step` and return them in order; None if the run has to stop.

        Groups are graded as they arrive, in other threads, so waiting for completions and waiting for their grades are
        told apart: `waited_s` and `grading_s`.

        With active sampling, groups whose rewards are all equal are replaced by those of further prompts, up to the
        limit; beyond it, the first of them complete the batch.
        """
        wanted = self._pg.prompts_per_update
        groups: list[tuple[int, RolloutGroup]] = []
        self.waited_s = self.grading_s = 0.0
        while True:
            positions = self._order.planned[step][len(groups) :]
            if not self._client.wait_until(partial(self._arrived, positions)):
                return None
            self.waited_s += self._client.record_span("wait for rollouts", step)
            groups += [(position, self._graded(position)) for position in positions]
            self.grading_s += self._client.record_span("grading", step)
            useful = [g for g in groups if not self._pg.active_sampling or not g[1].tied]
            missing = min(wanted - len(useful), self._pg.active_sampling - (len(groups) - wanted))
            if missing <= 0:
                break
            for position in self._order.draw_more(step, missing):
                self._queue(step, position)
            self._client.flush()
        tied = [g for g in groups if g not in useful]
        kept = (useful + tied)[:wanted]
        self._kept[step] = [position for position, _ in kept]
        self._solved |= {position: group.solved for position, group in groups}
        self._order.record(step, [group.solved for _, group in groups])
        return [group for _, group in kept]

    def uses(self, step: int) -> tuple[PromptUse, ...]:
        """Return the ledger's entries for update `step`, trained and dropped prompts, and forget the update."""
        uses = []
        kept = set(self._kept.pop(step))
        skipped = set(self._order.skipped.pop(step, ()))
        for position in sorted([*self._order.planned.pop(step), *skipped]):
            epoch, item = self._order.at(position)
            if position % self._prompts == 0:  # an epoch begins: record its over-long prompts here
                uses += [PromptUse(epoch, dropped.problem.id, TOO_LONG) for dropped in self._too_long]
            if position in skipped:
                uses.append(PromptUse(epoch, item.problem.id, SKIPPED))
            else:
                reason, solved = "" if position in kept else NO_VARIANCE, self._solved.pop(position)
                uses.append(PromptUse(epoch, item.problem.id, reason, solved.correct, solved.of))
        return tuple(uses)

    def skipped(self, step: int) -> int:
        """Number of prompts skipped while drawing those of update `step`."""
        return len(self._order.skipped.get(step, ()))

    def resampled(self, step: int) -> int:
        """Number of extra prompts requested for update `step` so far."""
        return len(self._order.planned[step]) - self._pg.prompts_per_update

    def _queue(self, step: int, position: int) -> None:
        request = self._request(step, position)
        self._client.request(request, partial(self._start_grading, self._gradings, position))
        if self._with_baseline:
            self._client.request(_greedy(request), partial(self._start_grading, self._baselines, position))

    def _start_grading(
        self, gradings: dict[int, Future[tuple[GradedCompletion, ...]]], position: int, result: GroupResult
    ) -> None:
        gradings[position] = self._task.start_grading(self._order.at(position)[1], result.completions)

    def _arrived(self, positions: Sequence[int]) -> bool:
        needed = [self._gradings, self._baselines] if self._with_baseline else [self._gradings]
        return all(position in gradings for gradings in needed for position in positions)

    def _graded(self, position: int) -> RolloutGroup:
        epoch, item = self._order.at(position)
        baseline = None
        if self._with_baseline:
            (baseline,) = self._client.wait_for(self._baselines.pop(position))
        return RolloutGroup(epoch, item, self._client.wait_for(self._gradings.pop(position)), baseline)

    def _request_id(self, step: int, position: int) -> str:
        return f"{self._client.incarnation}/rollout/{step}/{position}"

    def _request(self, step: int, position: int) -> GenerateGroup:
        _, item = self._order.at(position)
        sampling = SamplingSpec(
            temperature=self._pg.temperature,
            top_p=self._pg.top_p,
            max_new_tokens=self._pg.max_new_tokens,
            seed=(self._seed << 40) + position * self._pg.group_size,  # completion i of a group uses seed + i
            stop_token_ids=self._task.stop_token_ids,
            stop_texts=self._task.stop_texts,
            top_k=self._pg.top_k,
            min_p=self._pg.min_p,
            repetition_penalty=self._pg.repetition_penalty,
        )
        return GenerateGroup(
            request_id=self._request_id(step, position),
            prompt_ids=item.prompt_ids,
            n=self._pg.group_size,
            sampling=sampling,
            min_version=max(step - self._pg.max_staleness, self._start),
            pinned=False,
            priority=2 * step,  # validations are in between
        )


def _greedy(request: GenerateGroup) -> GenerateGroup:
    """Return the request of the same prompt's most likely completion."""
    sampling = replace(request.sampling, temperature=0.0)
    return replace(request, request_id=f"{request.request_id}/greedy", n=1, sampling=sampling)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rollouts of one policy update: G groups of N completions, with their rewards."""

    groups: Sequence[RolloutGroup]
    rewards_GN: np.ndarray
    samples: list[list[Sample]]

    @property
    def trained_rewards_GN(self) -> np.ndarray:
        """The rewards, less that of the group's greedy completion if there is one."""
        baselines_G = [0.0 if group.baseline is None else group.baseline.reward.total for group in self.groups]
        less_baseline_GN: np.ndarray = self.rewards_GN - np.array(baselines_G)[:, None]
        return less_baseline_GN


def assemble(groups: Sequence[RolloutGroup], config: Config, version: int) -> Batch:
    """Turn groups into samples, still without advantages; `version` is the one being trained."""
    masks = config.policy_gradient.overlong == "mask"
    samples = [
        [
            rollout_sample(
                prompt_ids=group.item.prompt_ids,
                completion_ids=graded.completion.token_ids,
                behaviour_logprobs=graded.completion.logprobs,
                on_policy=_token_versions(graded.completion) == version,
                in_loss=not (masks and graded.completion.finish_reason == "length"),
            )
            for graded in group.completions
        ]
        for group in groups
    ]
    rewards_GN = np.array([[graded.reward.total for graded in group.completions] for group in groups])
    return Batch(groups, rewards_GN, samples)


def _token_versions(completion: Completion) -> np.ndarray:
    """Weight version of every token, int64 [R]."""
    spans = completion.version_spans
    return np.repeat([span.version for span in spans], [span.end - span.start for span in spans])
