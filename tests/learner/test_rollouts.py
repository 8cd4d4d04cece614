"""Which prompts go to which update: pacing, active sampling and its limit, and the plan of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from grpo_gsm8k.grading import answers, rewards, scoring
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.learner.prompt_order import PromptPlan
from grpo_gsm8k.learner.rollout_batch import assemble
from grpo_gsm8k.learner.rollouts import NO_VARIANCE, SKIPPED, Rollouts
from grpo_gsm8k.learner.task import GradedCompletion, Item
from grpo_gsm8k.transport.protocol import Completion, GenerateGroup, GroupResult, PromptUse, VersionSpan
from tests.learner.conftest import small_config

ITEMS = [Item(Problem(str(i), "q", "a", "1"), np.array([5 + i], dtype=np.int32)) for i in range(30)]


class Net:
    """Client and task in one: answers at once, and gives an item's completions equal rewards where told to."""

    incarnation = 0

    def __init__(self, tied: set[str]) -> None:
        self.tied = tied
        self.queued: list[GenerateGroup] = []
        self.on_result: dict[str, Callable[[GroupResult], None]] = {}
        self.arrived: list[GroupResult] = []
        self.stop_token_ids = (1,)
        self.started: list[str] = []  # problem ids, as their grading started
        self.spans: list[str] = []
        self.stop_texts = ()

    def request(self, request: GenerateGroup, on_result: Callable[[GroupResult], None]) -> None:
        self.queued.append(request)
        self.on_result[request.request_id] = on_result

    def flush(self) -> None:
        for request in self.queued:
            completion = Completion(np.array([7, 1]), np.zeros(2), "stop", (VersionSpan(0, 0, 2),))
            self.arrived.append(GroupResult(request.request_id, (completion,) * request.n))
        self.queued = []

    def poll(self) -> None:
        for result in self.arrived:
            self.on_result.pop(result.request_id)(result)
        self.arrived = []

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        self.poll()
        return condition()

    def wait_for(self, work: Future[Any]) -> Any:
        return work.result()

    def record_span(self, name: str, version: int) -> float:
        self.spans.append(name)
        return {"wait for rollouts": 1.0, "grading": 0.25}[name]

    def start_grading(self, item: Item, completions: Sequence[Completion]) -> Future[tuple[GradedCompletion, ...]]:
        self.started.append(item.problem.id)
        done: Future[tuple[GradedCompletion, ...]] = Future()
        done.set_result(tuple(self._graded(item, c, float(i % 2)) for i, c in enumerate(completions)))
        return done

    def _graded(self, item: Item, completion: Completion, reward: float) -> GradedCompletion:
        total = 1.0 if item.problem.id in self.tied else reward
        grade = answers.grade("#### 1", "1", answers.AnswerFormat.HASH, answers.Locale.EN)
        score = rewards.RewardScore(total, {"correct": total})
        return GradedCompletion(item, completion, "", grade, score, scoring.ErrorKind.CORRECT)


def rollouts(net: Net, limit: int, start: int = 0, plan: PromptPlan | None = None, *more: str) -> Rollouts:
    config = small_config(
        "policy_gradient.group_size=2",
        "policy_gradient.episodes_per_update=8",
        "policy_gradient.updates=4",
        "policy_gradient.max_staleness=1",
        f"policy_gradient.active_sampling={limit}",
        *more,
    )
    client: Any = net
    return Rollouts(client, client, ITEMS, [], config, start, plan or PromptPlan(0, {}))


def ids(groups: Any) -> list[str]:
    return [group.item.problem.id for group in groups]


def order(net: Net) -> list[str]:
    """Problem ids of the first requests, by position."""
    return [str(int(request.prompt_ids[0]) - 5) for request in net.queued]


def test_a_greedy_completion_more_per_prompt_is_the_baseline() -> None:
    net = Net({"3"})
    more = ["policy_gradient=remax", "policy_gradient.temperature=0.7"]
    r = rollouts(net, 0, 0, None, *more)
    r.request_until(0)
    sampled, greedy = net.queued[0::2], net.queued[1::2]
    assert [(g.n, g.sampling.temperature, g.request_id) for g in greedy] == [
        (1, 0.0, f"{s.request_id}/greedy") for s in sampled
    ]
    assert all(s.n == 2 and s.sampling.temperature == 0.7 for s in sampled)
    assert all(
        (g.min_version, g.priority, g.prompt_ids.tolist()) == (s.min_version, s.priority, s.prompt_ids.tolist())
        for g, s in zip(greedy, sampled, strict=True)
    )
    net.flush()
    groups = r.take(0)
    assert groups is not None
    batch = assemble(groups, small_config(*more), 0)
    # The net rewards the first completion of a request with 0, the second with 1; prompt 3 always has 1.
    assert [g.baseline is not None and len(g.completions) == 2 for g in groups] == [True] * 4
    tied = [g.item.problem.id == "3" for g in groups]
    assert batch.rewards_GN.tolist() == [[1.0, 1.0] if t else [0.0, 1.0] for t in tied]
    assert batch.trained_rewards_GN.tolist() == [[0.0, 0.0] if t else [0.0, 1.0] for t in tied]


def test_an_update_waits_for_the_baseline() -> None:
    net = Net(set())
    r = rollouts(net, 0, 0, None, "policy_gradient=remax")
    r.request_until(0)
    last = net.queued.pop(7)  # the greedy completion of the update's last prompt
    net.flush()
    assert last.request_id.endswith("/greedy")
    assert r.take(0) is None  # this net stops where it would wait
    net.queued = [last]
    net.flush()
    assert r.take(0) is not None


def test_an_update_gets_its_prompts_in_order() -> None:
    net = Net(set())
    r = rollouts(net, limit=0)
    r.request_until(0)
    planned = order(net)
    assert len(planned) == 8  # updates 0 and 1: one may be generated ahead
    net.flush()
    assert ids(r.take(0)) == planned[:4]
    assert [use.reason for use in r.uses(0)] == [""] * 4
    assert ids(r.take(1)) == planned[4:]


def test_completions_of_later_updates_are_graded_as_they_arrive() -> None:
    net = Net(set())
    r = rollouts(net, limit=0)
    r.request_until(0)
    planned = order(net)
    assert net.started == []
    net.flush()
    assert ids(r.take(0)) == planned[:4]
    assert net.started == planned  # those of update 1, too, while update 0 was waited for
    r.uses(0)
    assert ids(r.take(1)) == planned[4:]
    assert net.started == planned


def test_groups_without_variance_are_replaced_and_accounted_for() -> None:
    net = Net(set())
    r = rollouts(net, limit=8)
    r.request_until(0)
    planned = order(net)
    net.tied = {planned[0], planned[2]}
    net.flush()
    taken = ids(r.take(0))
    assert taken[:2] == [planned[1], planned[3]]
    assert len(taken) == 4
    assert not set(taken) & set(planned[4:])  # not taken from the next update
    assert r.resampled(0) == 2
    reasons = {use.prompt_id: use.reason for use in r.uses(0)}
    assert [reasons[p] for p in planned[:4]] == [NO_VARIANCE, "", NO_VARIANCE, ""]
    assert ids(r.take(1)) == planned[4:]
    r.uses(1)
    assert r.plan == PromptPlan(10, {})


def test_waiting_for_completions_is_told_from_waiting_for_grades() -> None:
    """Also where groups are replaced, so that both happen several times."""
    net = Net(set())
    r = rollouts(net, limit=8)
    r.request_until(0)
    net.tied = {order(net)[0]}
    net.flush()
    r.take(0)
    assert net.spans == ["wait for rollouts", "grading"] * 2
    assert (r.waited_s, r.grading_s) == (2.0, 0.5)
    r.uses(0)
    r.take(1)
    assert (r.waited_s, r.grading_s) == (1.0, 0.25)


def test_replacing_ends_at_the_limit() -> None:
    net = Net({str(i) for i in range(30)})
    r = rollouts(net, limit=5)
    r.request_until(0)
    planned = order(net)
    net.flush()
    assert ids(r.take(0)) == planned[:4]  # nothing better was found
    assert r.resampled(0) == 5
    reasons = [use.reason for use in r.uses(0)]
    assert reasons.count(NO_VARIANCE) == 5


def test_without_active_sampling_groups_without_variance_stay() -> None:
    net = Net({str(i) for i in range(30)})
    r = rollouts(net, limit=0)
    r.request_until(0)
    planned = order(net)
    net.flush()
    assert ids(r.take(0)) == planned[:4]


@pytest.mark.parametrize("done", [1, 2])
def test_a_resumed_run_gives_the_same_prompts_to_the_same_updates(done: int) -> None:
    def run(r: Rollouts, net: Net, updates: range) -> list[list[str]]:
        taken = []
        for step in updates:
            r.request_until(step)
            net.flush()
            taken.append(ids(r.take(step)))
            r.uses(step)
            r.request_until(step + 1)
            net.flush()
        return taken

    tied = {str(i) for i in range(0, 30, 3)}
    net = Net(tied)
    whole = run(rollouts(net, 8), net, range(4))
    net = Net(tied)
    first = rollouts(net, 8)
    begun = run(first, net, range(done))
    again = Net(tied)
    resumed = rollouts(again, 8, done, first.plan)
    assert begun + run(resumed, again, range(done, 4)) == whole


LONG = ("policy_gradient.updates=20", "data.sampler=difficulty")


def run_updates(r: Rollouts, net: Net, updates: range) -> list[tuple[PromptUse, ...]]:
    """Return the ledger's entries of some updates, in the order of calls of the training loop."""
    entries = []
    for step in updates:
        r.request_until(step)
        net.flush()
        assert r.take(step)
        r.request_until(step + 1)
        net.flush()
        entries.append(r.uses(step))
    return entries


@pytest.mark.parametrize("limit", [0, 3])
@pytest.mark.parametrize("done", [1, 7, 8, 19])
def test_a_resumed_run_skips_the_same_prompts(done: int, limit: int) -> None:
    """All completions are right, so prompts are skipped from the second epoch on, and none twice in an epoch."""
    tied = {str(i) for i in range(0, 30, 3)}
    net = Net(tied)
    whole = run_updates(rollouts(net, limit, 0, None, *LONG), net, range(20))
    visits = [(use.epoch, use.prompt_id) for uses in whole for use in uses]
    assert len(visits) == len(set(visits))
    assert sum(use.reason == SKIPPED for uses in whole for use in uses) > 40
    net = Net(tied)
    first = rollouts(net, limit, 0, None, *LONG)
    begun = run_updates(first, net, range(done))
    again = Net(tied)
    plan = TypeAdapter(PromptPlan).validate_python(json.loads(json.dumps(asdict(first.plan))))
    assert begun + run_updates(rollouts(again, limit, done, plan, *LONG), again, range(done, 20)) == whole


def test_a_longer_run_begins_with_the_prompts_of_a_shorter_one() -> None:
    """Though the shorter run's last updates were drawn with nothing after them."""
    net = Net(set())
    whole = run_updates(rollouts(net, 0, 0, None, *LONG), net, range(20))
    short = rollouts(Net(set()), 0, 0, None, *LONG, "policy_gradient.updates=10")
    net = short._client  # type: ignore[assignment]
    begun = run_updates(short, net, range(10))
    rest = rollouts(net, 0, 10, short.plan, *LONG)
    assert begun + run_updates(rest, net, range(10, 20)) == whole


def test_epochs_count_drawn_and_skipped_prompts() -> None:
    net = Net(set())
    r = rollouts(net, 0, 0, None, *LONG)
    uses = run_updates(r, net, range(15))
    assert r.epoch == sum(map(len, uses)) / 30
    assert r.skipped(15) == len(r.plan.skipped.get(15, ()))
