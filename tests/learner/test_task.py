"""What is graded of a completion: its text before the first stop text, and all of its tokens."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.grading.scoring import ErrorKind
from grpo_gsm8k.learner.task import Item, Task
from grpo_gsm8k.tiny.tokenizer import build_tokenizer
from grpo_gsm8k.transport.protocol import Completion, VersionSpan
from tests.learner.conftest import small_config


def completion(text: str, reason: str = "stop") -> Completion:
    ids = np.array(build_tokenizer().encode(text), dtype=np.int32)
    return Completion(ids, np.zeros(len(ids), dtype=np.float32), reason, (VersionSpan(0, 0, len(ids)),))


@pytest.mark.parametrize(
    ("text", "stops", "shown", "kind"),
    [
        ("#### 7\nQuestion:", ["Question:"], "#### 7\n", ErrorKind.CORRECT),
        ("#### 71", ["1"], "#### 7", ErrorKind.CORRECT),  # without the stop text the answer is another one
        ("#### 7", ["####"], "", ErrorKind.FORMAT),
        ("#### 71", [], "#### 71", ErrorKind.LOGIC),
    ],
)
def test_the_text_before_the_stop_text_is_graded(text: str, stops: list[str], shown: str, kind: ErrorKind) -> None:
    config = small_config()
    pg = config.policy_gradient.model_copy(update={"stop": stops})
    task = Task(build_tokenizer(), config.model_copy(update={"policy_gradient": pg}), (1,))
    item = Item(Problem("a", "3+4", "#### 7", "7"), np.array([5], dtype=np.int32))
    (graded,) = task.start_grading(item, [completion(text)]).result()
    assert (graded.text, graded.kind) == (shown, kind)
    assert len(graded.completion.token_ids) == len(text)  # one token per character, all of them trained on


def parts(text: str, rewards: str, *words: str) -> list[dict[str, float]]:
    """Parts of completions of 5, 10, 15 and 20 tokens, the last of them truncated, that all decode to `text`."""
    config = small_config("policy_gradient.max_new_tokens=20", f"policy_gradient.rewards={rewards}", *words)
    tokenizer = SimpleNamespace(decode=lambda ids, skip_special_tokens: text)
    task = Task(tokenizer, config, (1,))
    spans = (VersionSpan(0, 0, 1),)
    completions = [
        Completion(np.arange(n), np.zeros(n), "length" if n == 20 else "stop", spans) for n in (5, 10, 15, 20)
    ]
    item = Item(Problem("a", "3+4", "#### 7", "7"), np.array([5], dtype=np.int32))
    return [graded.reward.parts for graded in task.start_grading(item, completions).result()]


def test_soft_overlong_is_the_penalty_as_a_part() -> None:
    """With a buffer of 10 of the 20 tokens: 0 up to 10, -1/2 at 15, -1 at the limit."""
    buffer = "policy_gradient.overlong_buffer=0.5"
    part = [found["soft_overlong"] for found in parts("", "{soft_overlong: 2}", buffer)]
    assert part == pytest.approx([0.0, 0.0, -0.5, -1.0])
    assert part == [p["overlong"] for p in parts("", "{correct: 1}", buffer, "policy_gradient.overlong=penalty")]


def test_tag_count_with_its_settings_is_zero_if_truncated() -> None:
    text = "<a>\n2 + 3\n</a>\n<b>\n5\n</b>\nxyz"
    words = ("policy_gradient.tag_count.tags=[a,b]", "policy_gradient.tag_count.trailing_cost=0.001")
    # "xyz" is charged twice, three characters each time: 0.5 - 2 * 0.003
    assert [p["tag_count"] for p in parts(text, "{tag_count: 1}", *words)] == pytest.approx([0.494] * 3 + [0.0])
