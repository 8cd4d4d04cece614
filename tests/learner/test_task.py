"""What is graded of a completion: its text before the first stop text, and all of its tokens."""

from __future__ import annotations

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
