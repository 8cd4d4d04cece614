"""The batch that a policy update consumes: graded groups, and the samples made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.data.difficulty import Solved
from grpo_gsm8k.grading.scoring import ErrorKind
from grpo_gsm8k.learner.batching import rollout_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config, PolicyGradientConfig
    from grpo_gsm8k.learner.batching import Sample
    from grpo_gsm8k.learner.task import GradedCompletion, Item
    from grpo_gsm8k.transport.protocol import Completion


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

    @property
    def stale_frac(self) -> float:
        """Fraction of the sampled tokens that are left out of the loss because they are too old."""
        masks = [sample.mask for group in self.samples for sample in group]
        return 1.0 - sum(int(mask.sum()) for mask in masks) / sum(map(len, masks))


def assemble(groups: Sequence[RolloutGroup], config: Config, version: int) -> Batch:
    """Turn groups into samples, still without advantages; `version` is the one being trained."""
    pg = config.policy_gradient
    samples = [[_sample(group, graded, pg, version) for graded in group.completions] for group in groups]
    rewards_GN = np.array([[graded.reward.total for graded in group.completions] for group in groups])
    return Batch(groups, rewards_GN, samples)


def _sample(group: RolloutGroup, graded: GradedCompletion, pg: PolicyGradientConfig, version: int) -> Sample:
    """Return a completion as a sample; with late=partial its mask leaves out tokens older than `max_staleness`.

    They stay context of the others, as segments of earlier iterations can be left out of the loss in Kimi k1.5
    (arXiv:2501.12599). A completion of such tokens alone is not in the loss.
    """
    versions_R = token_versions(graded.completion)
    oldest = version - pg.max_staleness if pg.late == "partial" else 0
    recent_R = versions_R >= oldest
    overlong = pg.overlong == "mask" and graded.completion.finish_reason == "length"
    return rollout_sample(
        prompt_ids=group.item.prompt_ids,
        completion_ids=graded.completion.token_ids,
        behaviour_logprobs=graded.completion.logprobs,
        on_policy=versions_R == version,
        in_loss=not overlong and bool(recent_R.any()),
        mask=recent_R,
    )


def token_versions(completion: Completion) -> np.ndarray:
    """Weight version of every token, int64 [R]."""
    spans = completion.version_spans
    return np.repeat([span.version for span in spans], [span.end - span.start for span in spans])
