"""Prompting variants: with or without the system prompt, and with zero, one or several worked examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.data.prompts import Shot
from grpo_gsm8k.data.responses import worked_answer
from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import PromptConfig
    from grpo_gsm8k.grading.problem import Problem

BARE = "_bare"


def without_instruction(prompt: PromptConfig) -> PromptConfig:
    """Return the template without the system prompt."""
    return prompt.model_copy(update={"system": ""})


def repeats(ways: Sequence[str], prompt: PromptConfig) -> list[str]:
    """Return the bare variants that duplicate another one because the template has no system prompt."""
    if prompt.system:
        return []
    return [way for way in ways if way.endswith(BARE) and way.removesuffix(BARE) in ways]


def shots_of(
    prompting: str, shots: int, train: Sequence[Problem], evaluated: Sequence[Problem], prompt: PromptConfig, seed: int
) -> tuple[Shot, ...]:
    """Return the worked examples of a variant: drawn by seed from train, without evaluated questions.

    A smaller number takes a prefix, so that variants share their first examples. Raises UserError if there are too few.
    """
    count = {"zero_shot": 0, "one_shot": 1, "few_shot": shots}[prompting.removesuffix(BARE)]
    excluded = {problem.question for problem in evaluated}
    candidates = [problem for problem in train if problem.question not in excluded]
    if count > len(candidates):
        raise UserError(
            f"eval.shots={count}: train has only {len(candidates)} problems that are not evaluated; lower eval.shots"
        )
    order = np.random.default_rng(seed).permutation(len(candidates))[:count]
    chosen = [candidates[i] for i in order]
    return tuple(Shot(p.question, worked_answer(p, prompt.answer_rules, calculator=False)) for p in chosen)
