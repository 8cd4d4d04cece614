"""Reward of one completion: a weighted sum of named parts, each a pure function of the completion and its grade.

Every part of a truncated completion is 0: its last number may have lost digits, and `scoring.classify` counts it as
truncated, so reward and accuracy agree. Two parts differ on purpose: `wrong` is 1, because with a negative weight
running into the limit would otherwise pay more than a wrong answer; `soft_overlong`, a length penalty, is -1. A part
from `policy_gradient.rewards_file` decides for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.grading.answers import Grade

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from grpo_gsm8k.grading.problem import Problem


@dataclass(frozen=True, slots=True)
class RewardInput:
    """Everything that a part may use.

    `problem` has the question and the gold answer, `prompt` is the text that the model was given, special tokens
    included, and `text` is the completion without them; `token_ids` are the sampled tokens, the end of the sequence
    included. `finish_reason` is `stop`, or `length` if the token limit ended the completion.
    """

    problem: Problem
    prompt: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    grade: Grade

    @property
    def truncated(self) -> bool:
        """Whether the token limit ended the completion, not the model."""
        return self.finish_reason == "length"

    @property
    def tokens(self) -> int:
        """Number of sampled tokens."""
        return len(self.token_ids)

    @property
    def question(self) -> str:
        """The problem's question, without the prompt template."""
        return self.problem.question

    @property
    def gold(self) -> str:
        """The gold answer in its stored form."""
        return self.problem.gold

    @property
    def extra(self) -> Mapping[str, Any]:
        """The other columns of the problem's row, as JSON values."""
        return self.problem.extra


@dataclass(frozen=True, slots=True)
class RewardScore:
    """The weighted sum `total`, and the unweighted `parts` by name; `failed` parts count as 0."""

    total: float
    parts: dict[str, float]
    failed: tuple[str, ...] = ()

    def plus(self, name: str, value: float) -> RewardScore:
        """Return a copy with one more part, of weight 1."""
        return RewardScore(self.total + value, {**self.parts, name: value}, self.failed)


RewardPart = Callable[[RewardInput], float]


def correct_reward(item: RewardInput) -> float:
    """Return 1 for a finished completion with the gold answer, else 0."""
    return float(item.grade.correct and not item.truncated)


def wrong_reward(item: RewardInput) -> float:
    """Return 1 unless the completion is finished and correct: also without a readable answer, and if truncated."""
    return 1.0 - correct_reward(item)


def exact_text_reward(item: RewardInput) -> float:
    """Return 1 for a finished completion whose extracted answer is the gold answer character by character."""
    extracted = item.grade.extracted
    return float(extracted is not None and extracted.strip() == item.gold.strip() and not item.truncated)


def format_reward(item: RewardInput) -> float:
    """Return 1 for a finished, well-formed completion, right or wrong, else 0."""
    return float(item.grade.well_formed and not item.truncated)


REWARD_PARTS: dict[str, RewardPart] = {
    "correct": correct_reward,
    "wrong": wrong_reward,
    "exact_text": exact_text_reward,
    "format": format_reward,
}
CONFIGURED_PARTS = ("soft_overlong", "tag_count")  # they have settings: see `Task`
SHIPPED_PARTS = (*REWARD_PARTS, *CONFIGURED_PARTS)
# Other values are recorded as train/reward_mean and train/reward_overlong.
RESERVED_NAMES = ("mean", "overlong")


def validate_reward_weights(weights: Mapping[str, float], user_parts: Collection[str] = ()) -> None:
    """Raise UserError for an empty map, an unknown part or a non-finite weight.

    `user_parts` are the names from `policy_gradient.rewards_file`.
    """
    names = sorted((*REWARD_PARTS, *CONFIGURED_PARTS, *user_parts))
    known = ", ".join(names)
    if not weights:
        raise UserError(f"policy_gradient.rewards: empty; set the weight of at least one part (known: {known})")
    for name, weight in weights.items():
        if name not in names:
            raise UserError(f"policy_gradient.rewards.{name}: unknown reward part; known: {known}")
        if not math.isfinite(weight):
            raise UserError(f"policy_gradient.rewards.{name}: {weight} is not finite; set a finite number")


def score(
    item: RewardInput,
    weights: Mapping[str, float],
    parts: Mapping[str, RewardPart],
    values: Mapping[str, float],
    failed: tuple[str, ...] = (),
) -> RewardScore:
    """Score one completion. Parts of weight 0 are computed as well, for monitoring.

    `values` are those of parts that were computed elsewhere, by name. Raises LabError if a part is not finite, and
    KeyError for a part that `validate_reward_weights` rejects.
    """
    found = {name: values[name] if name in values else parts[name](item) for name in weights}
    for name, value in found.items():
        if not math.isfinite(value):
            raise LabError(f"reward part {name} returned {value} for a completion of {len(item.text)} characters")
    return RewardScore(math.fsum(weights[name] * value for name, value in found.items()), found, failed)
