"""Validations in progress: what is requested, how urgent it is, and when a validation is reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grpo_gsm8k.grading import answers, rewards, scoring
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.learner.task import GradedCompletion, Item
from grpo_gsm8k.learner.validation import Validation
from grpo_gsm8k.transport.protocol import Completion, GenerateGroup, GroupResult, ValidationDone, VersionSpan
from tests.learner.conftest import small_config

ITEMS = [Item(Problem(str(i), "q", "#### 1", "1"), np.array([5 + i], dtype=np.int32)) for i in range(4)]


class Net:
    """Client and task in one. Answers arrive when the test says so, and are graded when it says so."""

    incarnation = 0
    stop_token_ids = (1,)
    stop_texts = ()

    def __init__(self) -> None:
        self.requests: list[tuple[GenerateGroup, Callable[[GroupResult], None]]] = []
        self.gradings: list[tuple[Future[Any], GradedCompletion]] = []
        self.sent: list[object] = []
        self.spans: list[str] = []

    def report(self, message: object) -> None:
        self.sent.append(message)

    def request(self, request: GenerateGroup, on_result: Callable[[GroupResult], None]) -> None:
        self.requests.append((request, on_result))

    def answer(self, count: int) -> None:
        for request, on_result in self.requests[:count]:
            spans = (VersionSpan(request.min_version, 0, 2),)
            on_result(GroupResult(request.request_id, (Completion(np.array([7, 1]), np.zeros(2), "stop", spans),)))
        del self.requests[:count]

    def poll(self) -> None:
        pass

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        self.answer(len(ITEMS))
        return condition()

    def wait_for(self, work: Future[Any]) -> Any:
        self.grade()
        return work.result(0)

    def record_span(self, name: str, version: int) -> float:
        self.spans.append(f"{name} {version}")
        return 2.0

    def start_grading(self, item: Item, completions: Sequence[Completion]) -> Future[tuple[GradedCompletion, ...]]:
        grade = answers.grade("#### 1", item.problem.gold, answers.AnswerFormat.HASH, answers.Locale.EN)
        score = rewards.RewardScore(1.0, {"correct": 1.0})
        done: Future[tuple[GradedCompletion, ...]] = Future()
        graded = GradedCompletion(item, completions[0], "#### 1", grade, score, scoring.ErrorKind.CORRECT)
        self.gradings.append((done, graded))
        return done

    def grade(self) -> None:
        for future, graded in self.gradings:
            future.set_result((graded,))
        self.gradings = []

    @property
    def done(self) -> list[int]:
        return [message.version for message in self.sent if isinstance(message, ValidationDone)]


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def validation(net: Any, tmp_path: Path) -> Validation:
    return Validation(net, net, ITEMS, small_config("policy_gradient.max_staleness=2"), 10, tmp_path)


def test_all_items_are_pinned_and_between_the_rollouts_of_two_versions(net: Net, validation: Validation) -> None:
    """Version 3 generates rollouts up to update 5 (priority 10); those of update 6 (priority 12) need version 4."""
    validation.submit(3)
    assert [(r.min_version, r.pinned, r.priority) for r, _ in net.requests] == [(3, True, 11)] * 4


def test_a_validation_is_reported_when_all_answers_are_graded(net: Net, validation: Validation) -> None:
    validation.submit(3)
    net.answer(3)
    net.grade()
    validation.drain()
    assert net.done == []
    net.answer(1)
    validation.drain()  # the last answer has arrived, but is not graded
    assert net.done == []
    assert validation.pending == (3,)
    net.grade()
    validation.drain()
    assert net.done == [3]
    assert validation.accuracy == {3: 1.0}
    assert validation.pending == ()


def test_waiting_leaves_as_many_as_it_may(net: Net, validation: Validation) -> None:
    for version in (3, 6):
        validation.submit(version)
    validation.wait(at_most=2)
    assert (net.done, validation.waited_s) == ([], 0.0)
    validation.wait(at_most=1)
    assert (net.done, validation.pending) == ([3], (6,))
    assert validation.waited_s == 2.0  # without the time of grading
    assert net.spans == ["wait for validations 3", "validation results 3"]
    validation.wait()
    assert net.done == [3, 6]
