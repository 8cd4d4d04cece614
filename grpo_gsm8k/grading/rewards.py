"""Reward of one completion: a weighted sum of named parts, each a pure function of the text and its grade.

No part depends on the length of a text; `policy_gradient.overlong` configures the length penalty. Every part of a
truncated completion is 0: its last number may have lost digits, and `scoring.classify` counts it as truncated, so
reward and accuracy agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import LabError, UserError
from grpo_gsm8k.grading.answers import Grade

if TYPE_CHECKING:
    from grpo_gsm8k.grading.problem import Problem


@dataclass(frozen=True, slots=True)
class RewardInput:
    """Everything that a part may use; `truncated`: the token limit ended the completion, not the model.

    `problem` has the question and the gold answer, `prompt` is the text that the model was given, special tokens
    included, and `text` is the completion without them.
    """

    problem: Problem
    prompt: str
    text: str
    grade: Grade
    truncated: bool


@dataclass(frozen=True, slots=True)
class RewardScore:
    """The weighted sum `total`, and the unweighted `parts` by name."""

    total: float
    parts: dict[str, float]

    def plus(self, name: str, value: float) -> RewardScore:
        """Return a copy with one more part, of weight 1."""
        return RewardScore(self.total + value, {**self.parts, name: value})


RewardPart = Callable[[RewardInput], float]


def correct_reward(item: RewardInput) -> float:
    """Return 1 for a finished completion with the gold number, else 0."""
    return float(item.grade.correct and not item.truncated)


def format_reward(item: RewardInput) -> float:
    """Return 1 for a finished, well-formed completion, right or wrong, else 0."""
    return float(item.grade.well_formed and not item.truncated)


REWARD_PARTS: dict[str, RewardPart] = {"correct": correct_reward, "format": format_reward}


def validate_reward_weights(weights: dict[str, float]) -> None:
    """Raise UserError for an empty map, an unknown part or a non-finite weight."""
    known = ", ".join(sorted(REWARD_PARTS))
    if not weights:
        raise UserError(f"policy_gradient.rewards: empty; set the weight of at least one part (known: {known})")
    for name, weight in weights.items():
        if name not in REWARD_PARTS:
            raise UserError(f"policy_gradient.rewards.{name}: unknown reward part; known: {known}")
        if not math.isfinite(weight):
            raise UserError(f"policy_gradient.rewards.{name}: {weight} is not finite; set a finite number")


def score(item: RewardInput, weights: dict[str, float]) -> RewardScore:
    """Score one completion. Parts of weight 0 are computed as well, for monitoring.

    Raises LabError if a part is not finite, and KeyError for a part that `validate_reward_weights` rejects.
    """
    parts = {name: REWARD_PARTS[name](item) for name in weights}
    for name, value in parts.items():
        if not math.isfinite(value):
            raise LabError(f"reward part {name} returned {value} for a completion of {len(item.text)} characters")
    return RewardScore(total=math.fsum(weights[name] * value for name, value in parts.items()), parts=parts)
