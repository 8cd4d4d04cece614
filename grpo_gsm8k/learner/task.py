"""Problems prepared for the engine, and completions graded: shared by rollouts and validation."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.algorithms.lengths import overlong_penalty
from grpo_gsm8k.data.prompts import encode_prompt
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading import answers, rewards, scoring
from grpo_gsm8k.grading.completion import before_stop
from grpo_gsm8k.grading.grader import Grader
from grpo_gsm8k.grading.tag_count import tag_count
from grpo_gsm8k.grading.user_rewards import GroupValues

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.grading.problem import Problem
    from grpo_gsm8k.grading.user_rewards import UserRewards
    from grpo_gsm8k.transport.protocol import Completion


GRADING_THREADS = 4  # they wait for child processes; grading without children takes turns with Python's lock


@dataclass(frozen=True, slots=True)
class Item:
    """One problem with its prompt as token ids, int32 [P]."""

    problem: Problem
    prompt_ids: np.ndarray


@dataclass(frozen=True, slots=True)
class GradedCompletion:
    """One completion with its text, grade and reward."""

    item: Item
    completion: Completion
    text: str
    grade: answers.Grade
    reward: rewards.RewardScore
    kind: scoring.ErrorKind

    @property
    def graded(self) -> scoring.Graded:
        """The verdict in the form that summary metrics are computed from."""
        return scoring.Graded(self.item.problem.id, self.kind, len(self.completion.token_ids))


class Task:
    """Turns problems into prompts and completions into rewards, with the configured template and answer format."""

    def __init__(
        self,
        tokenizer: Any,
        config: Config,
        stop_token_ids: tuple[int, ...],
        user_rewards: UserRewards | None = None,
    ) -> None:
        """`tokenizer` is a Hugging Face tokenizer; `stop_token_ids` end a completion.

        `user_rewards` has the configured reward parts that are not shipped.
        """
        self.stop_token_ids = stop_token_ids
        self.stop_texts = config.stop_texts
        self._tokenizer = tokenizer
        self._prompt = config.prompt
        self._grader = Grader(config.prompt.answer_rules)
        self._weights = config.policy_gradient.rewards
        pg = config.policy_gradient
        self._command = config.command
        self._limit = config.training.max_new_tokens
        buffer = max(1, round(pg.overlong_buffer * self._limit))
        self._penalty_buffer = buffer if pg.overlong == "penalty" else 0
        self._parts = {**rewards.REWARD_PARTS, **configured_parts(config, buffer)}
        self._user_rewards = user_rewards
        self._user_parts = [name for name in pg.rewards if name not in self._parts]
        self._room = config.actor.max_model_len - self._limit
        self._threads = ThreadPoolExecutor(GRADING_THREADS if _needs_children(config) else 1, "grading")

    def items(self, problems: Sequence[Problem]) -> tuple[list[Item], list[Item]]:
        """Encode all prompts; returns those that leave room for a completion, and those that are too long for it."""
        items = [Item(p, encode_prompt(self._prompt, p.question, self._tokenizer)) for p in problems]
        fitting = [item for item in items if 0 < len(item.prompt_ids) <= self._room]
        return fitting, [item for item in items if not 0 < len(item.prompt_ids) <= self._room]

    def training_items(self, problems: Sequence[Problem]) -> tuple[list[Item], list[Item]]:
        """Return the items to train on and those dropped as too long. Raises UserError if none is left."""
        fitting, too_long = self.items(problems)
        if not fitting:
            raise UserError(f"no training prompt fits into {self._room} tokens: {self._fix}")
        return fitting, too_long

    def validation_items(self, problems: Sequence[Problem]) -> list[Item]:
        """Return all items of the validation set.

        None may leave the denominator, so a prompt that is too long is a UserError.
        """
        fitting, too_long = self.items(problems)
        if too_long:
            longest = max(len(item.prompt_ids) for item in too_long)
            raise UserError(
                f"{len(too_long)} validation prompts exceed {self._room} tokens (longest {longest}): {self._fix}"
            )
        return fitting

    def start_grading(self, item: Item, completions: Sequence[Completion]) -> Future[tuple[GradedCompletion, ...]]:
        """Decode, grade and score the completions of one prompt, in another thread. Never waits."""
        return self._threads.submit(self._grade_group, item, completions)

    def close(self) -> None:
        """End the grading of completions that nobody waits for, and the child processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._grader.close()
        if self._user_rewards is not None:
            self._user_rewards.close()

    def _text(self, completion: Completion) -> str:
        """Return the text that is graded and recorded: without special tokens, and before the first stop text."""
        text = self._tokenizer.decode(completion.token_ids.tolist(), skip_special_tokens=True)
        return before_stop(text, self.stop_texts)

    def _grade_group(self, item: Item, completions: Sequence[Completion]) -> tuple[GradedCompletion, ...]:
        prompt = self._tokenizer.decode(item.prompt_ids.tolist(), skip_special_tokens=False)
        texts = [self._text(completion) for completion in completions]
        grades = self._grades(item, texts)
        scores = self._scores(item, prompt, completions, texts, grades)
        return tuple(
            GradedCompletion(item, c, text, grade, score, scoring.classify(grade, c.finish_reason == "length"))
            for c, text, grade, score in zip(completions, texts, grades, scores, strict=True)
        )

    def _grades(self, item: Item, texts: Sequence[str]) -> list[answers.Grade]:
        return self._grader.grade_all(texts, item.problem.gold)

    def _scores(
        self,
        item: Item,
        prompt: str,
        completions: Sequence[Completion],
        texts: Sequence[str],
        grades: Sequence[answers.Grade],
    ) -> list[rewards.RewardScore]:
        inputs = [
            rewards.RewardInput(item.problem, prompt, text, tuple(c.token_ids.tolist()), c.finish_reason, grade)
            for c, text, grade in zip(completions, texts, grades, strict=True)
        ]
        user = GroupValues() if self._user_rewards is None else self._user_rewards.score(self._user_parts, inputs)
        scores = []
        for index, each in enumerate(inputs):
            values = {name: found[index] for name, found in user.values.items()}
            failed = tuple(name for name, indices in user.failed.items() if index in indices)
            reward = rewards.score(each, self._weights, self._parts, values, failed)
            if self._penalty_buffer:
                reward = reward.plus("overlong", overlong_penalty(each.tokens, self._limit, self._penalty_buffer))
            scores.append(reward)
        return scores

    @property
    def _fix(self) -> str:
        return f"raise actor.max_model_len or lower {self._command}.max_new_tokens"


def configured_parts(config: Config, buffer: int) -> dict[str, rewards.RewardPart]:
    """Return the reward parts that have settings; `buffer`: tokens over which `soft_overlong` falls to -1."""
    limit, tags = config.training.max_new_tokens, config.policy_gradient.tag_count
    return {
        "soft_overlong": lambda item: overlong_penalty(item.tokens, limit, buffer),
        "tag_count": lambda item: 0.0 if item.truncated else tag_count(item.text, tags.tags, tags.trailing_cost),
    }


def _needs_children(config: Config) -> bool:
    """Whether grading waits for child processes, so that several threads are of use."""
    return bool(config.policy_gradient.rewards_files) or config.prompt.answer_rules.has_limits
