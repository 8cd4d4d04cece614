"""Paced generation: which prompts are asked for when, and the batch that a policy update consumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.algorithms.advantages import group_advantages, zero_variance
from grpo_gsm8k.data.sampler import prompt_at
from grpo_gsm8k.learner.batching import Sample
from grpo_gsm8k.protocol import GenerateGroup, PromptUse, Purpose, SamplingSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.client import Client
    from grpo_gsm8k.learner.task import Item, Judged, Task
    from grpo_gsm8k.protocol import Completion

TOO_LONG = "prompt_too_long"


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """All completions of one prompt in one epoch, judged."""

    epoch: int
    item: Item
    judged: tuple[Judged, ...]


class Rollouts:
    """Asks for the prompts of update k as soon as the weights of update k - max_staleness are published.

    Requests carry that version as their minimum, and belong to update k from the start: no sample is ever staler than
    the limit, none is dropped, and short completions do not overtake long ones into an earlier update. The order of
    prompts is a pure function of the position, so the data cursor is just the number of the next update.
    """

    def __init__(
        self, client: Client, task: Task, items: Sequence[Item], too_long: Sequence[Item], config: Config, start: int
    ) -> None:
        """`start` is the update to begin with, `too_long` the prompts that are left out of every epoch."""
        self._client = client
        self._task = task
        self._items = items
        self._too_long = too_long
        self._pg = config.policy_gradient
        self._seed = config.seed
        self._start = start
        self._next = start

    def request_until(self, version: int) -> None:
        """Queue requests for every update that weights `version` may already generate for."""
        last = min(version + self._pg.max_staleness, self._pg.updates - 1)
        while self._next <= last:
            for position in self._positions(self._next):
                self._client.queue(self._request(self._next, position))
            self._next += 1

    def take(self, step: int) -> list[RolloutGroup] | None:
        """The groups of update `step`, in order; waits for them. None if the run is to stop."""
        groups = []
        for position in self._positions(step):
            result = self._client.take(self._request_id(step, position))
            if result is None:
                return None
            epoch, item = self._at(position)
            groups.append(RolloutGroup(epoch, item, tuple(self._task.judge(item, c) for c in result.completions)))
        return groups

    def uses(self, step: int) -> tuple[PromptUse, ...]:
        """The ledger's entries for update `step`: trained prompts, and at an epoch's beginning its dropped ones."""
        uses = []
        for position in self._positions(step):
            epoch, item = self._at(position)
            if position % len(self._items) == 0:
                uses += [PromptUse(epoch, dropped.problem.id, TOO_LONG) for dropped in self._too_long]
            uses.append(PromptUse(epoch, item.problem.id))
        return tuple(uses)

    def _positions(self, step: int) -> range:
        count = self._pg.prompts_per_update
        return range(step * count, (step + 1) * count)

    def _at(self, position: int) -> tuple[int, Item]:
        epoch, index = prompt_at(position, len(self._items), self._seed)
        return epoch, self._items[index]

    def _request_id(self, step: int, position: int) -> str:
        return f"{self._client.incarnation}/rollout/{step}/{position}"

    def _request(self, step: int, position: int) -> GenerateGroup:
        _, item = self._at(position)
        sampling = SamplingSpec(
            temperature=self._pg.temperature,
            top_p=self._pg.top_p,
            max_new_tokens=self._pg.max_new_tokens,
            seed=(self._seed << 40) + position * self._pg.group_size,  # completion i of a group uses seed + i
            stop_token_ids=self._task.stop_token_ids,
        )
        return GenerateGroup(
            request_id=self._request_id(step, position),
            purpose=Purpose.ROLLOUT,
            prompt_ids=item.prompt_ids,
            n=self._pg.group_size,
            sampling=sampling,
            min_version=max(step - self._pg.max_staleness, self._start),
            pinned=False,
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """What one policy update consumes: G groups of N completions with their rewards and advantages."""

    groups: Sequence[RolloutGroup]
    rewards_GN: np.ndarray
    advantages_GN: np.ndarray
    samples: list[list[Sample]]


def assemble(groups: Sequence[RolloutGroup], config: Config, version: int) -> Batch:
    """Groups -> samples with advantages; `version` is the one being trained."""
    pg = config.policy_gradient
    rewards_GN = np.array([[judged.reward.total for judged in group.judged] for group in groups])
    advantages_GN = group_advantages(rewards_GN, pg.loss_type, pg.advantage_eps)
    samples = [
        [
            Sample(
                prompt_ids=group.item.prompt_ids,
                completion_ids=judged.completion.token_ids,
                behaviour_logprobs=judged.completion.logprobs,
                fresh=_token_versions(judged.completion) == version,
                advantage=float(advantage),
            )
            for judged, advantage in zip(group.judged, advantages_N, strict=True)
        ]
        for group, advantages_N in zip(groups, advantages_GN, strict=True)
    ]
    return Batch(groups, rewards_GN, advantages_GN, samples)


def rollout_metrics(batch: Batch, version: int) -> dict[str, float]:
    """Rewards, lengths and staleness of one batch."""
    judged = [j for group in batch.groups for j in group.judged]
    lengths = [len(j.completion.token_ids) for j in judged]
    staleness = [version - min(span.version for span in j.completion.version_spans) for j in judged]
    parts = {
        f"train/reward_{name}": float(np.mean([j.reward.parts[name] for j in judged]))
        for name in judged[0].reward.parts
    }
    return {
        "train/reward_mean": float(batch.rewards_GN.mean()),
        **parts,
        "train/advantage_std": float(batch.advantages_GN.std()),
        "train/frac_zero_variance_groups": float(zero_variance(batch.rewards_GN).mean()),
        "rollout/tokens": float(sum(lengths)),
        "rollout/length_mean": float(np.mean(lengths)),
        "rollout/truncated_frac": float(np.mean([j.completion.finish_reason == "length" for j in judged])),
        "rollout/staleness_mean": float(np.mean(staleness)),
        "rollout/staleness_max": float(max(staleness)),
    }


def _token_versions(completion: Completion) -> np.ndarray:
    """Weight version of every token, int64 [R]."""
    spans = completion.version_spans
    return np.repeat([span.version for span in spans], [span.end - span.start for span in spans])
