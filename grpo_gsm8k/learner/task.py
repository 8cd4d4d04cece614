"""Problems made ready for the engine, and completions judged: what rollouts and validation share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.algorithms.lengths import overlong_penalty
from grpo_gsm8k.data.prompts import encode_prompt
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading import answers, rewards, scoring

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.data.problems import Problem
    from grpo_gsm8k.transport.protocol import Completion


@dataclass(frozen=True, slots=True)
class Item:
    """One problem with its prompt as token ids, int32 [P]."""

    problem: Problem
    prompt_ids: np.ndarray


@dataclass(frozen=True, slots=True)
class Judged:
    """One completion, read and graded."""

    item: Item
    completion: Completion
    text: str
    grade: answers.Grade
    reward: rewards.RewardScore
    kind: scoring.ErrorKind

    @property
    def graded(self) -> scoring.Graded:
        """What the summary metrics need."""
        return scoring.Graded(self.item.problem.id, self.kind, len(self.completion.token_ids))


class Task:
    """Turns problems into prompts and completions into rewards, by the configured template and answer format."""

    def __init__(self, tokenizer: Any, config: Config, stop_token_ids: tuple[int, ...]) -> None:
        """`tokenizer` is a Hugging Face tokenizer; `stop_token_ids` end a completion."""
        self.stop_token_ids = stop_token_ids
        self._tokenizer = tokenizer
        self._prompt = config.prompt
        self._weights = config.policy_gradient.rewards
        pg = config.policy_gradient
        self._command = config.command
        self._limit = config.training.max_new_tokens
        self._penalty_buffer = max(1, round(pg.overlong_buffer * self._limit)) if pg.overlong == "penalty" else 0
        self._room = config.actor.max_model_len - self._limit

    def items(self, problems: Sequence[Problem]) -> tuple[list[Item], list[Item]]:
        """All problems as items: those whose prompt leaves room for a completion, and those too long for it."""
        items = [Item(p, encode_prompt(self._prompt, p.question, self._tokenizer)) for p in problems]
        fitting = [item for item in items if 0 < len(item.prompt_ids) <= self._room]
        return fitting, [item for item in items if not 0 < len(item.prompt_ids) <= self._room]

    def training_items(self, problems: Sequence[Problem]) -> tuple[list[Item], list[Item]]:
        """Items to train on and items dropped as too long. Raises UserError when nothing is left."""
        fitting, too_long = self.items(problems)
        if not fitting:
            raise UserError(f"no training prompt fits into {self._room} tokens: {self._fix}")
        return fitting, too_long

    def validation_items(self, problems: Sequence[Problem]) -> list[Item]:
        """All items of the validation set; none may leave the denominator, so one too long is a UserError."""
        fitting, too_long = self.items(problems)
        if too_long:
            longest = max(len(item.prompt_ids) for item in too_long)
            raise UserError(
                f"{len(too_long)} validation prompts exceed {self._room} tokens (longest {longest}): {self._fix}"
            )
        return fitting

    def judge(self, item: Item, completion: Completion) -> Judged:
        """Decode, grade and score one completion."""
        text = self._tokenizer.decode(completion.token_ids.tolist(), skip_special_tokens=True)
        grade = answers.grade(text, item.problem.gold_number, self._prompt.answer_format, self._prompt.locale)
        truncated = completion.finish_reason == "length"
        reward = rewards.score(rewards.RewardInput(text, grade, truncated), self._weights)
        if self._penalty_buffer:
            penalty = overlong_penalty(len(completion.token_ids), self._limit, self._penalty_buffer)
            reward = reward.plus("overlong", penalty)
        return Judged(item, completion, text, grade, reward, scoring.classify(grade, truncated))

    @property
    def _fix(self) -> str:
        return f"raise actor.max_model_len or lower {self._command}.max_new_tokens"
