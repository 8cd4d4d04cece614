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

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.grading.problem import Problem
    from grpo_gsm8k.transport.protocol import Completion


GRADING_THREADS = 4  # they wait for child processes


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

    def __init__(self, tokenizer: Any, config: Config, stop_token_ids: tuple[int, ...]) -> None:
        """`tokenizer` is a Hugging Face tokenizer; `stop_token_ids` end a completion."""
        self.stop_token_ids = stop_token_ids
        self.stop_texts = config.stop_texts
        self._tokenizer = tokenizer
        self._prompt = config.prompt
        self._grader = Grader(config.prompt.answer_rules)
        self._weights = config.policy_gradient.rewards
        pg = config.policy_gradient
        self._command = config.command
        self._limit = config.training.max_new_tokens
        self._penalty_buffer = max(1, round(pg.overlong_buffer * self._limit)) if pg.overlong == "penalty" else 0
        self._room = config.actor.max_model_len - self._limit
        self._threads = ThreadPoolExecutor(GRADING_THREADS) if _needs_children(config) else None

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
        """Decode the completions of one prompt, and grade and score them; child processes may still be at it."""
        prompt = self._tokenizer.decode(item.prompt_ids.tolist(), skip_special_tokens=False)
        texts = [self._text(completion) for completion in completions]
        if self._threads is not None:
            return self._threads.submit(self._grade_group, item, prompt, completions, texts)
        done: Future[tuple[GradedCompletion, ...]] = Future()
        done.set_result(self._grade_group(item, prompt, completions, texts))
        return done

    def close(self) -> None:
        """End the grading of completions that nobody waits for, and the child processes."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self._grader.close()

    def _text(self, completion: Completion) -> str:
        """Return the text that is graded and recorded: without special tokens, and before the first stop text."""
        text = self._tokenizer.decode(completion.token_ids.tolist(), skip_special_tokens=True)
        return before_stop(text, self.stop_texts)

    def _grade_group(
        self, item: Item, prompt: str, completions: Sequence[Completion], texts: Sequence[str]
    ) -> tuple[GradedCompletion, ...]:
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
        scores = []
        for completion, text, grade in zip(completions, texts, grades, strict=True):
            truncated = completion.finish_reason == "length"
            reward = rewards.score(rewards.RewardInput(item.problem, prompt, text, grade, truncated), self._weights)
            if self._penalty_buffer:
                penalty = overlong_penalty(len(completion.token_ids), self._limit, self._penalty_buffer)
                reward = reward.plus("overlong", penalty)
            scores.append(reward)
        return scores

    @property
    def _fix(self) -> str:
        return f"raise actor.max_model_len or lower {self._command}.max_new_tokens"


def _needs_children(config: Config) -> bool:
    """Whether grading waits for child processes, so that it belongs in threads."""
    return config.prompt.answer_kind is answers.AnswerKind.EXPRESSION
