"""Rewards of a group: shipped parts with their settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.learner.task import Item, Task
from grpo_gsm8k.transport.protocol import Completion, VersionSpan
from tests.learner.conftest import small_config

ITEM = Item(Problem("p-1", "What is 2 + 3?", "#### 5", "5"), np.array([3], dtype=np.int32))
LIMIT = 20


class Tokenizer:
    """Decodes every completion to the same text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return self.text if skip_special_tokens else "prompt"


def completion(tokens: int) -> Completion:
    ids, logprobs = np.arange(tokens), np.zeros(tokens)
    return Completion(ids, logprobs, "length" if tokens == LIMIT else "stop", (VersionSpan(0, 0, tokens),))


def parts(text: str, rewards: str, *words: str) -> list[dict[str, float]]:
    config = small_config(f"policy_gradient.max_new_tokens={LIMIT}", f"policy_gradient.rewards={rewards}", *words)
    tokenizer: Any = Tokenizer(text)
    task = Task(tokenizer, config, (1,))
    graded = task.start_grading(ITEM, [completion(n) for n in (5, 10, 15, LIMIT)]).result()
    return [g.reward.parts for g in graded]


def test_soft_overlong_is_the_penalty_as_a_part() -> None:
    """Here 10 of the 20 tokens: 0 up to 10, -1/2 at 15, -1 at the limit."""
    buffer = "policy_gradient.overlong_buffer=0.5"
    part = [p["soft_overlong"] for p in parts("", "{soft_overlong: 2}", buffer)]
    assert part == pytest.approx([0.0, 0.0, -0.5, -1.0])
    assert part == [p["overlong"] for p in parts("", "{correct: 1}", buffer, "policy_gradient.overlong=penalty")]


def test_tag_count_with_its_settings_is_zero_if_truncated() -> None:
    text = "<a>\n2 + 3\n</a>\n<b>\n5\n</b>\nxyz"
    words = ("policy_gradient.tag_count.tags=[a,b]", "policy_gradient.tag_count.trailing_cost=0.001")
    # "xyz" is charged twice, three characters each time: 0.5 - 2 * 0.003
    assert [p["tag_count"] for p in parts(text, "{tag_count: 1}", *words)] == pytest.approx([0.494] * 3 + [0.0])
