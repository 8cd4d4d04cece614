"""The ways of asking: with or without the instruction, after none, one or several worked examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.data.prompts import Shot
from grpo_gsm8k.data.responses import worked_answer
from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import PromptConfig
    from grpo_gsm8k.data.problems import Problem

BARE = "_bare"


def without_instruction(prompt: PromptConfig) -> PromptConfig:
    """The same template with nothing but the question in it."""
    return prompt.model_copy(update={"system": ""})


def repeats(ways: Sequence[str], prompt: PromptConfig) -> list[str]:
    """The ways without an instruction that ask nothing new, as the template has none to leave out."""
    if prompt.system:
        return []
    return [way for way in ways if way.endswith(BARE) and way.removesuffix(BARE) in ways]


def shots_of(
    prompting: str, shots: int, train: Sequence[Problem], evaluated: Sequence[Problem], prompt: PromptConfig, seed: int
) -> tuple[Shot, ...]:
    """The worked examples of a way of asking: by seed, from train, never a question that is evaluated.

    Fewer are the first of more, so that one shot and eight shots differ in nothing else. Raises UserError.
    """
    count = {"zero_shot": 0, "one_shot": 1, "few_shot": shots}[prompting.removesuffix(BARE)]
    asked = {problem.question for problem in evaluated}
    candidates = [problem for problem in train if problem.question not in asked]
    if count > len(candidates):
        raise UserError(f"eval.shots={count}: train has only {len(candidates)} problems that are not evaluated")
    order = np.random.default_rng(seed).permutation(len(candidates))[:count]
    fmt, locale = prompt.answer_format, prompt.locale
    chosen = [candidates[i] for i in order]
    return tuple(Shot(p.question, worked_answer(p, fmt, locale, calculator=False)) for p in chosen)
