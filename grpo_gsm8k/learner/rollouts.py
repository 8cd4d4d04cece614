"""Paced generation: which prompts are requested when, and the groups that a policy update consumes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from grpo_gsm8k.learner.prompt_order import PromptOrder
from grpo_gsm8k.learner.rollout_batch import RolloutGroup
from grpo_gsm8k.transport.protocol import GenerateGroup, PromptUse, SamplingSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.data.difficulty import Solved
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.prompt_order import PromptPlan
    from grpo_gsm8k.learner.task import GradedCompletion, Item, Task
    from grpo_gsm8k.transport.protocol import GroupResult

TOO_LONG = "prompt_too_long"
NO_VARIANCE = "no_variance"
SKIPPED = "skipped"  # by data.sampler=difficulty
TOO_STALE = "too_stale"  # by policy_gradient.late=drop or partial


class Rollouts:
    """Requests the prompts of update k as soon as the weights of update k - max_staleness are published.

    With late=wait, requests carry that version as their minimum and belong to update k from the start. So no sample is
    staler than the limit, none is dropped, and short completions do not overtake long ones into an earlier update. With
    late=drop or partial as many are in flight, and an update takes the first that are finished; what is too stale for
    the next update is dropped, and other prompts are requested instead. `PromptOrder` assigns prompts to updates.
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
        self._last = self._pg.updates_for(len(items)) - 1
        self._prompts = len(items)
        self._order = PromptOrder(items, config, start, plan)
        self._solved: dict[int, Solved] = {}  # by position
        self._kept: dict[int, list[int]] = {}  # positions that an update trains on
        self._requested: dict[int, GenerateGroup] = {}  # by position, until an update has consumed or dropped it
        self._newest: dict[int, int] = {}  # by position: version of the newest token of a finished group
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
        """Queue requests for every update whose completions weights `version` may generate.

        With late=drop or partial, what is too stale for update `version` is dropped before.
        """
        self._drop_expired(version, recorded=version - 1)
        self._request_planned(version)

    def _request_planned(self, version: int) -> None:
        for step in range(version, min(version + self._pg.max_staleness, self._last) + 1):
            for position in self._order.draw(step):
                if position not in self._requested:
                    self._queue(step, position, version)

    def take(self, step: int) -> list[RolloutGroup] | None:
        """Wait for the groups of update `step` and return them in order; None if the run has to stop.

        Groups are graded as they arrive, in other threads, so waiting for completions and waiting for their grades are
        told apart: `waited_s` and `grading_s`.

        With active sampling, groups whose rewards are all equal are replaced by those of further prompts, up to the
        limit; beyond it, the first of them complete the batch.
        """
        wanted = missing = self._pg.prompts_per_update
        choose = self._next_in_order if self._pg.late == "wait" else self._first_finished
        groups: list[tuple[int, RolloutGroup]] = []
        self.waited_s = self.grading_s = 0.0
        while True:
            positions = choose(step, [position for position, _ in groups], missing)
            if positions is None:
                return None
            self.waited_s += self._client.record_span("wait for rollouts", step)
            groups += [(position, self._graded(position)) for position in positions]
            self.grading_s += self._client.record_span("grading", step)
            useful = [g for g in groups if not self._pg.active_sampling or not g[1].tied]
            missing = min(wanted - len(useful), self._pg.active_sampling - (len(groups) - wanted))
            if missing <= 0:
                break
            for position in self._order.draw_more(step, missing):
                self._queue(step, position, self._oldest(step) if self._pg.late == "wait" else step)
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
        reasons = dict.fromkeys(self._order.skipped.pop(step, ()), SKIPPED)
        reasons |= dict.fromkeys(self._order.dropped.pop(step, ()), TOO_STALE)
        consumed = self._order.planned.pop(step)
        for position in consumed:
            self._forget(position)
        for position in sorted([*consumed, *reasons]):
            epoch, item = self._order.at(position)
            if position % self._prompts == 0:  # an epoch begins: record its over-long prompts here
                uses += [PromptUse(epoch, dropped.problem.id, TOO_LONG) for dropped in self._too_long]
            if position in reasons:
                uses.append(PromptUse(epoch, item.problem.id, reasons[position]))
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

    def dropped(self, step: int) -> int:
        """Number of groups that update `step` records as dropped because they were too stale."""
        return len(self._order.dropped.get(step, ()))

    def _next_in_order(self, step: int, taken: Sequence[int], missing: int) -> list[int] | None:
        """Wait for the groups planned for update `step`; None if the run has to stop."""
        positions = self._order.planned[step][len(taken) :]
        return positions if self._client.wait_until(partial(self._arrived, positions)) else None

    def _first_finished(self, step: int, taken: Sequence[int], missing: int) -> list[int] | None:
        """Wait until any `missing` groups are finished, and plan them for update `step`; None if the run has to stop.

        Of more finished groups than that, those requested first are the ones.
        """

        def enough() -> bool:
            return len(self._finished(step, taken)) >= missing

        while self._client.wait_until(lambda: enough() or bool(self._expired(step))):
            self._drop_expired(step, recorded=step)
            if enough():
                positions = self._finished(step, taken)[:missing]
                self._order.claim(step, [*taken, *positions])
                return positions
            self._request_planned(step)  # in place of those that were dropped
            self._client.flush()
        return None

    def _finished(self, step: int, taken: Sequence[int]) -> list[int]:
        """Return the positions whose groups update `step` can take beside those that it has `taken`."""
        return [p for p in self._order.waiting(step) if p not in taken and self._arrived([p])]

    def _oldest(self, step: int) -> int:
        """Return the oldest version that update `step` may train on."""
        return max(step - self._pg.max_staleness, self._start)

    def _expired(self, step: int) -> list[int]:
        """Return the waiting positions whose groups update `step` may not train on.

        drop: those requested under older weights than it may use, finished or not, as in prime-rl, which counts the
        updates since a request. partial: finished ones without a token that is recent enough.
        """
        if self._pg.late == "wait":
            return []
        oldest = self._oldest(step)
        waiting = self._order.waiting(step)
        if self._pg.late == "partial":
            return [p for p in waiting if self._newest.get(p, oldest) < oldest]
        return [p for p in waiting if p in self._requested and self._requested[p].min_version < oldest]

    def _drop_expired(self, step: int, recorded: int) -> None:
        """Drop the groups that are too stale for update `step`, and end their generation."""
        expired = self._expired(step)
        if not expired:
            return
        self._order.drop(step, expired, recorded)
        cancelled = [self._requested[position].request_id for position in expired]
        if self._with_baseline:
            cancelled += [_greedy_id(request_id) for request_id in cancelled]
        self._client.cancel(cancelled)
        for position in expired:
            self._forget(position)
            self._gradings.pop(position, None)
            self._baselines.pop(position, None)

    def _forget(self, position: int) -> None:
        self._requested.pop(position, None)
        self._newest.pop(position, None)

    def _queue(self, step: int, position: int, version: int) -> None:
        """Request the group of a position, which weights `version` or newer ones may generate."""
        request = self._requested[position] = self._request(step, position, version)
        self._client.request(request, partial(self._start_grading, self._gradings, position))
        if self._with_baseline:
            self._client.request(_greedy(request), partial(self._start_grading, self._baselines, position))

    def _start_grading(
        self, gradings: dict[int, Future[tuple[GradedCompletion, ...]]], position: int, result: GroupResult
    ) -> None:
        if gradings is self._gradings:
            spans = [span for completion in result.completions for span in completion.version_spans]
            self._newest[position] = max(span.version for span in spans)
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

    def _request(self, step: int, position: int, version: int) -> GenerateGroup:
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
            min_version=version,
            pinned=False,
            priority=2 * step,  # validations are in between
        )


def _greedy(request: GenerateGroup) -> GenerateGroup:
    """Return the request of the same prompt's most likely completion."""
    sampling = replace(request.sampling, temperature=0.0)
    return replace(request, request_id=_greedy_id(request.request_id), n=1, sampling=sampling)


def _greedy_id(request_id: str) -> str:
    return f"{request_id}/greedy"
