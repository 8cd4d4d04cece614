"""policy_gradient.late=drop and partial: which groups an update takes, what is dropped, and an exact account of all."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from grpo_gsm8k.data.sampler import prompt_at
from grpo_gsm8k.grading import answers, rewards, scoring
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.learner.prompt_order import NO_PROMPTS, PromptPlan
from grpo_gsm8k.learner.rollout_batch import assemble, token_versions
from grpo_gsm8k.learner.rollouts import NO_VARIANCE, SKIPPED, TOO_LONG, TOO_STALE, Rollouts
from grpo_gsm8k.learner.task import GradedCompletion, Item
from grpo_gsm8k.transport.protocol import Completion, GenerateGroup, GroupResult, PromptUse, VersionSpan
from tests.learner.conftest import small_config

ITEMS = [Item(Problem(str(i), "q", "a", "1"), np.array([5 + i], dtype=np.int32)) for i in range(30)]
LONG = Item(Problem("too long", "q", "a", "1"), np.zeros(1000, dtype=np.int32))
PROMPTS, SEED = 4, 7


class Net:
    """Client, task and engine in one; `finish` says which requests are done, waiting finishes the one `choose`s."""

    incarnation = 0
    stop_token_ids = (1,)
    stop_texts = ()

    def __init__(self, choose: Callable[[list[str]], str | None] = lambda _: None) -> None:
        self.version = 0
        self.choose = choose
        self.running: dict[str, tuple[GenerateGroup, list[int]]] = {}  # with the versions of tokens so far
        self.on_result: dict[str, Callable[[GroupResult], None]] = {}
        self.cancelled: list[str] = []
        self.requested: list[int] = []  # positions

    def request(self, request: GenerateGroup, on_result: Callable[[GroupResult], None]) -> None:
        assert request.request_id not in self.on_result
        assert request.min_version <= self.version
        self.running[request.request_id] = (request, [])
        self.on_result[request.request_id] = on_result
        if not request.request_id.endswith("/greedy"):
            self.requested.append(position(request.request_id))

    def cancel(self, request_ids: Sequence[str]) -> None:
        self.cancelled += request_ids
        for request_id in request_ids:
            self.running.pop(request_id, None)
            self.on_result.pop(request_id, None)

    def flush(self) -> None:
        self.step()

    def step(self) -> None:
        """Sample a token for everything that runs."""
        for _, versions in self.running.values():
            versions.append(self.version)

    def finish(self, request_id: str) -> None:
        request, versions = self.running.pop(request_id)
        changes = [i for i in range(1, len(versions)) if versions[i] != versions[i - 1]]
        starts, ends = [0, *changes], [*changes, len(versions)]
        spans = tuple(VersionSpan(versions[s], s, e) for s, e in zip(starts, ends, strict=True))
        completion = Completion(np.full(len(versions), 7), np.zeros(len(versions)), "stop", spans)
        result = GroupResult(request_id, (completion,) * request.n)
        self.on_result.pop(request_id)(result)

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        while not condition():
            self.step()
            chosen = self.choose(list(self.running))
            if chosen is None:
                return False
            self.finish(chosen)
        return True

    def wait_for(self, work: Future[Any]) -> Any:
        return work.result()

    def record_span(self, name: str, version: int) -> float:
        return 0.0

    def start_grading(self, item: Item, completions: Sequence[Completion]) -> Future[tuple[GradedCompletion, ...]]:
        done: Future[tuple[GradedCompletion, ...]] = Future()
        grade = answers.grade("#### 1", "1", answers.AnswerFormat.HASH, answers.Locale.EN)
        tied = int(item.problem.id) % 3 == 0
        scores = [rewards.RewardScore(1.0 if tied else float(i % 2), {}) for i in range(len(completions))]
        done.set_result(
            tuple(
                GradedCompletion(item, completion, "", grade, score, scoring.ErrorKind.CORRECT)
                for completion, score in zip(completions, scores, strict=True)
            )
        )
        return done


def position(request_id: str) -> int:
    return int(request_id.split("/")[3])


def named(net: Net, *positions: int) -> list[str]:
    return [name for name in net.running if position(name) in positions]


def rollouts(net: Net, *words: str, start: int = 0, plan: PromptPlan = NO_PROMPTS) -> Rollouts:
    config = small_config(
        "policy_gradient.group_size=2",
        f"policy_gradient.episodes_per_update={2 * PROMPTS}",
        "policy_gradient.max_staleness=1",
        f"seed={SEED}",
        *words,
    )
    client: Any = net
    net.version = start
    return Rollouts(client, client, ITEMS, [LONG], config, start, plan)


def publish(r: Rollouts, net: Net, version: int) -> None:
    net.version = version
    r.request_until(version)
    net.flush()


def taken(r: Rollouts, step: int) -> list[int]:
    """Positions of the groups that update `step` takes."""
    groups = r.take(step)
    assert groups is not None
    of_item = {group.item.problem.id for group in groups}
    return [p for p in r.plan.positions[step] if ITEMS[prompt_at(p, len(ITEMS), SEED)[1]].problem.id in of_item]


DROP, PARTIAL = "policy_gradient.late=drop", "policy_gradient.late=partial"


def test_an_update_takes_what_is_finished_first_and_waits_for_no_more() -> None:
    net = Net()
    r = rollouts(net, DROP)
    publish(r, net, 0)
    assert net.requested == list(range(8))
    assert r.take(0) is None
    for name in named(net, 7, 1, 6):
        net.finish(name)
    assert r.take(0) is None  # three are not enough, and nothing is lost by asking
    for name in named(net, 2, 3):
        net.finish(name)
    assert taken(r, 0) == [1, 2, 3, 6]  # of five, those requested first
    publish(r, net, 1)
    assert net.requested[8:] == [8, 9, 10, 11]  # as many as were taken
    assert [use.reason for use in r.uses(0)] == [""] * 4
    assert r.plan.positions == {1: (0, 4, 5, 7), 2: (8, 9, 10, 11)}


def test_groups_requested_too_long_ago_are_cancelled_recorded_and_replaced() -> None:
    net = Net()
    r = rollouts(net, DROP)
    publish(r, net, 0)
    for name in named(net, 1, 2, 3, 4):
        net.finish(name)
    r.take(0)
    publish(r, net, 1)
    r.uses(0)
    for name in named(net, 8, 9, 10, 11):
        net.finish(name)
    assert taken(r, 1) == [8, 9, 10, 11]
    assert net.cancelled == []
    stale = named(net, 0, 5, 6, 7)
    publish(r, net, 2)  # update 2 may train on versions 1 and 2
    assert sorted(net.cancelled) == sorted(stale)
    assert net.requested[12:] == list(range(12, 20))
    assert r.dropped(1) == 4
    uses = r.uses(1)
    assert [use.reason for use in uses] == [TOO_LONG] + [TOO_STALE] * 4 + [""] * 4  # position 0 begins the epoch
    assert [(use.correct, use.of) for use in uses if use.reason == TOO_STALE] == [(None, None)] * 4
    assert r.dropped(2) == 0


def test_a_dropped_group_takes_its_baseline_with_it() -> None:
    net = Net()
    r = rollouts(net, DROP, "policy_gradient=remax", "policy_gradient.max_staleness=1")
    publish(r, net, 0)
    for step in range(2):
        first = [name for name in net.running if position(name) >= 4 * (step + 1)][:8]
        for name in first:
            net.finish(name)
        assert r.take(step) is not None
        publish(r, net, step + 1)
        r.uses(step)
    assert {position(name) for name in net.cancelled} == {0, 1, 2, 3}
    assert len(net.cancelled) == 8


def test_partial_cancels_nothing_and_masks_what_is_too_old() -> None:
    """Position 0 runs from version 0 to 2: update 2 trains on its tokens of versions 1 and 2."""
    net = Net()
    r = rollouts(net, PARTIAL)
    publish(r, net, 0)
    for step in range(2):
        for name in [name for name in net.running if position(name)][:PROMPTS]:
            net.finish(name)
        assert 0 not in taken(r, step)
        publish(r, net, step + 1)
        r.uses(step)
    for name in list(net.running)[:PROMPTS]:
        net.finish(name)
    groups = r.take(2)
    assert groups is not None
    assert net.cancelled == []
    batch = assemble(groups, small_config(PARTIAL, "policy_gradient.max_staleness=1"), 2)
    for group, samples in zip(groups, batch.samples, strict=True):
        for graded, sample in zip(group.completions, samples, strict=True):
            versions = token_versions(graded.completion)
            assert sample.mask.tolist() == (versions >= 1).tolist()
            assert sample.on_policy.tolist() == (versions == 2).tolist()
            assert sample.in_loss
    masks = np.concatenate([sample.mask for samples in batch.samples for sample in samples])
    assert 0 < batch.stale_frac == pytest.approx(1 - masks.mean())
    wait = assemble(groups, small_config("policy_gradient.max_staleness=1"), 2)
    assert wait.stale_frac == 0


def test_a_completion_of_old_tokens_alone_is_not_in_the_loss() -> None:
    """Its group was finished late by another completion, whose newer tokens are trained on."""
    net = Net()
    r = rollouts(net, PARTIAL)
    publish(r, net, 0)
    for name in named(net, 0, 1, 2, 3):
        net.finish(name)
    groups = r.take(0)
    assert groups is not None
    batch = assemble(groups, small_config(PARTIAL, "policy_gradient.max_staleness=1"), 2)
    assert {sample.in_loss for samples in batch.samples for sample in samples} == {False}
    assert batch.stale_frac == 1


def test_partial_replaces_groups_without_any_recent_token() -> None:
    """An engine that is behind (a validation keeps it at a version) finishes them late."""
    net = Net()
    r = rollouts(net, PARTIAL)
    publish(r, net, 0)
    for step in range(3):
        for name in [name for name in net.running if position(name) > 1][:PROMPTS]:
            net.finish(name)
        assert r.take(step) is not None
        if step < 2:
            publish(r, net, step + 1)
            r.uses(step)
    for name in named(net, 0, 1):  # sampled, so far as this test goes, by version 0 alone
        net.running[name] = (net.running[name][0], [0, 0])
        net.finish(name)
    publish(r, net, 3)
    assert r.dropped(2) == 2
    assert {use.reason for use in r.uses(2)} == {"", TOO_STALE, TOO_LONG}


def test_partial_replaces_groups_that_arrive_too_old_during_an_update() -> None:
    """Until the update is recorded, a checkpoint has them as waiting: its ledger has not heard of the drop."""
    net = Net()
    r = rollouts(net, PARTIAL)
    publish(r, net, 0)
    for step in range(2):
        for name in [name for name in net.running if position(name) > 1][:PROMPTS]:
            net.finish(name)
        assert r.take(step) is not None
        publish(r, net, step + 1)
        r.uses(step)
    old = named(net, 0, 1)

    def choose(running: list[str]) -> str:
        name = old.pop() if old else running[-1]
        if position(name) in (0, 1):
            net.running[name] = (net.running[name][0], [0, 0])
        return name

    net.choose = choose
    before = len(net.requested)
    assert not {0, 1} & set(taken(r, 2))
    assert len(net.requested) == before + 2
    assert r.dropped(2) == 2
    waiting = {p for positions in r.plan.positions.values() for p in positions}
    assert waiting == set(range(2, r.plan.cursor)) - set(range(2, 10)) | {0, 1}
    publish(r, net, 3)
    uses = r.uses(2)
    assert sorted(use.reason for use in uses) == ["", "", "", "", TOO_LONG, TOO_STALE, TOO_STALE]
    assert not {0, 1} & {p for positions in r.plan.positions.values() for p in positions}


@pytest.mark.parametrize("late", [DROP, PARTIAL])
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "words",
    [
        (),
        ("policy_gradient.active_sampling=3",),
        ("data.sampler=difficulty",),
        ("data.sampler=difficulty", "policy_gradient.active_sampling=2"),
        ("policy_gradient=remax", "policy_gradient.max_staleness=1"),
    ],
)
def test_the_account_is_exact_through_kills_and_stops(late: str, seed: int, words: tuple[str, ...]) -> None:
    """Every position drawn is in the ledger once, or in the plan of the checkpoint that the run continues from."""
    rng = random.Random(seed)
    staleness, updates = rng.choice([1, 2, 3]), 12
    words = (late, *words, f"policy_gradient.max_staleness={staleness}", f"policy_gradient.updates={updates}")

    def choose(running: list[str]) -> str | None:
        if rng.random() < stop:
            return None
        return rng.choice(running[-10:])  # the newest ones first, so that others get old

    ledger: dict[int, tuple[PromptUse, ...]] = {}
    plan, saved, stop = NO_PROMPTS, 0, 0.0
    for life in range(6):
        stop = 0.02 if life < 5 else 0.0
        ledger = {step: uses for step, uses in ledger.items() if step < saved}  # as the orchestrator's rollback
        net = Net(choose)
        r = rollouts(net, *words, start=saved, plan=plan)
        publish(r, net, saved)
        step = saved
        while step < updates and (groups := r.take(step)) is not None:
            for group in groups:
                newest = max(v for c in group.completions for v in token_versions(c.completion))
                oldest = min(v for c in group.completions for v in token_versions(c.completion))
                assert (newest if late == PARTIAL else oldest) >= step - staleness
            publish(r, net, step + 1)
            ledger[step] = r.uses(step)
            step += 1
            if rng.random() < 0.5:
                plan, saved = reread(r.plan), step
                assert_exact(ledger, plan)
        if rng.random() < 0.5 or step == updates:  # a stop saves what is done, a kill does not
            plan, saved = reread(r.plan), step
            assert_exact(ledger, plan)
    assert saved == updates
    assert sorted(ledger) == list(range(updates))
    assert all(sum(use.reason == "" for use in uses) == PROMPTS for uses in ledger.values())


def reread(plan: PromptPlan) -> PromptPlan:
    return TypeAdapter(PromptPlan).validate_python(asdict(plan))


def assert_exact(ledger: dict[int, tuple[PromptUse, ...]], plan: PromptPlan) -> None:
    """Consumed, dropped, skipped and waiting prompts are exactly those before the cursor, each once."""
    uses = [use for entries in ledger.values() for use in entries]
    assert {use.reason for use in uses} <= {"", NO_VARIANCE, TOO_STALE, SKIPPED, TOO_LONG}
    waiting = [p for part in (plan.positions, plan.skipped) for positions in part.values() for p in positions]
    visits = [prompt_at(p, len(ITEMS), SEED) for p in waiting]
    visits += [(use.epoch, int(use.prompt_id)) for use in uses if use.reason != TOO_LONG]
    assert sorted(visits) == sorted(prompt_at(p, len(ITEMS), SEED) for p in range(plan.cursor))


def test_a_run_that_ends_has_nothing_in_flight() -> None:
    rng = random.Random(0)
    net = Net(lambda running: rng.choice(running))
    r = rollouts(net, DROP, "policy_gradient.updates=6", "policy_gradient.active_sampling=2")
    publish(r, net, 0)
    for step in range(6):
        assert r.take(step) is not None
        publish(r, net, step + 1)
        r.uses(step)
    assert r.plan.positions == {}
    assert net.running == {}
