"""Router without processes: assignment, re-issue, pruning of weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_gsm8k.errors import WeightsError
from grpo_gsm8k.runtime.router import Router
from grpo_gsm8k.transport.protocol import (
    Bundle,
    Cancel,
    GenerateGroup,
    GroupResult,
    LoadWeights,
    PublishAgain,
    Reset,
    SamplingSpec,
    WeightsDamaged,
    WeightsLive,
    WeightsRef,
)


def request(name: str, version: int = 0, pinned: bool = False, n: int = 1) -> GenerateGroup:
    return GenerateGroup(name, np.array([1], dtype=np.int32), n, SamplingSpec(1.0, 1.0, 4, 0, (1,)), version, pinned)


def ref(version: int, incarnation: int = 0, attempt: int = 0) -> WeightsRef:
    return WeightsRef(version, f"/shm/i{incarnation}/v{version}.{attempt}")


class Net:
    """A router with records of everything that it sent or deleted."""

    def __init__(self, actors: int = 1, repeat_bundles: bool = False) -> None:
        self.to_actor: list[tuple[int, object]] = []
        self.to_learner: list[object] = []
        self.deleted: list[WeightsRef] = []
        self.discarded: list[WeightsRef] = []
        self.router = Router(
            actors,
            lambda i, m: self.to_actor.append((i, m)),
            self.to_learner.append,
            self.deleted.append,
            self.discarded.append,
            repeat_bundles,
        )

    def publish(self, r: WeightsRef, *requests: GenerateGroup) -> None:
        self.router.from_learner(Bundle((LoadWeights(r), *requests)))

    def live(self, r: WeightsRef, index: int = 0) -> None:
        self.router.from_actor(index, WeightsLive(r, 0.1, 0.0))

    def damaged(self, r: WeightsRef, index: int = 0) -> None:
        self.router.from_actor(index, WeightsDamaged(r, f"version {r.version}: damaged"))

    def taken(self) -> tuple[list[tuple[int, object]], list[object]]:
        """What was sent to actors and learner since the last call."""
        sent = (self.to_actor[:], self.to_learner[:])
        self.to_actor.clear()
        self.to_learner.clear()
        return sent


def load(r: WeightsRef) -> Bundle:
    return Bundle((LoadWeights(r),))


def test_each_result_is_forwarded_exactly_once() -> None:
    net = Net()
    net.publish(ref(0), request("a"))
    for _ in range(2):
        net.router.from_actor(0, GroupResult("a", ()))
    net.router.from_actor(0, GroupResult("unknown", ()))
    assert [m.request_id for m in net.to_learner] == ["a"]  # type: ignore[attr-defined]
    assert net.router.outstanding == 0


def test_a_new_actor_gets_weights_and_outstanding_work_only() -> None:
    net = Net()
    net.publish(ref(0), request("val", 0, pinned=True), request("a"), request("b"))
    net.live(ref(0))
    net.publish(ref(1), request("c", 1))
    net.router.from_actor(0, GroupResult("a", ()))
    net.to_actor.clear()
    net.router.actor_restarted(0)
    ((_, bundle),) = net.to_actor
    assert isinstance(bundle, Bundle)
    assert [m.ref.version for m in bundle.messages if isinstance(m, LoadWeights)] == [0, 1]  # 0 is pinned
    assert [m.request_id for m in bundle.messages if isinstance(m, GenerateGroup)] == ["val", "b", "c"]


def test_a_new_actor_repeats_unfinished_bundles_in_synchronous_runs() -> None:
    """The requests of a bundle share their batches, so the new actor's batches are those of its predecessor."""
    net = Net(repeat_bundles=True)
    net.publish(ref(0), request("a"), request("b"))
    net.live(ref(0))
    for name in ("a", "b"):
        net.router.from_actor(0, GroupResult(name, ()))
    net.publish(ref(1), request("c", 1), request("d", 1), request("val", 1, pinned=True))
    net.publish(ref(2), request("e", 2))
    for name in ("c", "d"):
        net.router.from_actor(0, GroupResult(name, ()))
    net.to_actor.clear()
    net.router.actor_restarted(0)
    ((_, bundle),) = net.to_actor
    assert isinstance(bundle, Bundle)
    assert [m.ref.version for m in bundle.messages if isinstance(m, LoadWeights)] == [1, 2]
    assert [m.request_id for m in bundle.messages if isinstance(m, GenerateGroup)] == ["c", "d", "val", "e"]
    for name in ("c", "val"):
        net.router.from_actor(0, GroupResult(name, ()))
    assert [m.request_id for m in net.to_learner if isinstance(m, GroupResult)] == ["a", "b", "c", "d", "val"]
    net.router.learner_restarted()
    net.to_actor.clear()
    net.router.actor_restarted(0)
    assert net.to_actor == []  # the old learner's requests are void


def test_weights_are_deleted_only_when_nothing_may_load_them() -> None:
    net = Net(actors=2)
    net.publish(ref(0), request("val", 0, pinned=True))
    net.live(ref(0), 0)
    net.publish(ref(1))
    net.publish(ref(2))
    net.live(ref(2), 0)
    assert net.deleted == []  # actor 1 has loaded nothing yet
    net.live(ref(2), 1)
    assert net.deleted == [ref(1)]  # 0 is pinned: a new actor would need it
    net.router.from_actor(0, GroupResult("val", ()))
    assert net.deleted == [ref(1), ref(0)]


def test_a_new_learner_voids_the_old_ones_requests_but_not_yet_its_weights() -> None:
    net = Net()
    net.publish(ref(5), request("0/a"))
    net.live(ref(5))
    net.publish(ref(6))
    net.router.learner_restarted()
    assert isinstance(net.to_actor[-1][1], Reset)
    net.router.from_actor(0, GroupResult("0/a", ()))
    net.live(ref(6))  # loading when the learner died: not forwarded
    assert [type(m).__name__ for m in net.to_learner] == ["WeightsLive"]
    assert net.deleted == [ref(5)]
    net.publish(ref(4, 1), request("1/a"))
    assert net.deleted == [ref(5)]
    net.live(ref(4, 1))
    assert net.deleted == [ref(5), ref(6)]
    assert net.to_learner[-1] == WeightsLive(ref(4, 1), 0.1, 0.0)


def test_work_goes_to_the_least_loaded() -> None:
    net = Net(actors=2)
    net.publish(ref(0), request("a", n=4), request("b", n=1), request("c", n=1), request("d", n=4))
    shares = {i: [m.request_id for m in b.messages if isinstance(m, GenerateGroup)] for i, b in net.to_actor}  # type: ignore[attr-defined]
    assert shares == {0: ["a"], 1: ["b", "c", "d"]}


def test_damaged_weights_are_asked_for_once_and_go_to_those_that_lack_them() -> None:
    net = Net(actors=3)
    net.publish(ref(0))
    net.taken()
    net.live(ref(0), 2)
    net.damaged(ref(0), 0)
    net.damaged(ref(0), 1)
    assert net.taken() == ([], [WeightsLive(ref(0), 0.1, 0.0), PublishAgain(0, 1, pinned=False)])
    net.publish(ref(0, attempt=1))
    assert net.taken() == ([(0, load(ref(0, attempt=1))), (1, load(ref(0, attempt=1)))], [])
    net.live(ref(0, attempt=1), 0)
    net.live(ref(0, attempt=1), 1)
    assert net.discarded == net.deleted == []  # actor 2 may read it still
    net.publish(ref(1))
    for index in range(3):
        net.live(ref(1), index)
    assert net.deleted == [ref(0), ref(0, attempt=1)]


def test_an_actor_that_finds_the_damage_later_gets_the_replacement_at_once() -> None:
    net = Net(actors=2)
    net.publish(ref(0))
    net.damaged(ref(0), 0)
    net.publish(ref(0, attempt=1))
    net.taken()
    net.damaged(ref(0), 1)
    assert net.taken() == ([(1, load(ref(0, attempt=1)))], [])
    assert net.discarded == [ref(0)]  # no actor can load it


def test_damage_after_two_replacements_ends_the_run() -> None:
    net = Net()
    net.publish(ref(0))
    for attempt in (1, 2):
        net.damaged(ref(0, attempt=attempt - 1))
        assert net.taken()[1] == [PublishAgain(0, attempt, pinned=False)]
        net.publish(ref(0, attempt=attempt))
    with pytest.raises(WeightsError, match="version 0: damaged; it was published 3 times and damaged each time"):
        net.damaged(ref(0, attempt=2))


def test_a_superseded_version_is_replaced_only_if_a_request_is_pinned_to_it() -> None:
    net = Net()
    net.publish(ref(0), request("a"))
    net.publish(ref(1))
    net.damaged(ref(0))
    net.publish(ref(2), request("val", 2, pinned=True))
    net.publish(ref(3))
    net.damaged(ref(2))
    assert net.taken()[1] == [PublishAgain(2, 1, pinned=True)]


def test_a_new_actor_gets_the_replacement_also_if_it_is_still_to_come() -> None:
    net = Net(actors=2)
    net.publish(ref(0), request("val", 0, pinned=True))
    net.live(ref(0), 0)
    net.publish(ref(1))
    net.damaged(ref(0), 1)  # it does not need it
    assert net.taken()[1] == [WeightsLive(ref(0), 0.1, 0.0)]
    net.router.actor_restarted(0)  # this one does
    ((index, bundle),), asked = net.taken()
    assert index == 0
    assert isinstance(bundle, Bundle)
    assert bundle.messages == (LoadWeights(ref(1)), *[m for m in bundle.messages if isinstance(m, GenerateGroup)])
    assert asked == [PublishAgain(0, 1, pinned=True)]
    net.publish(ref(0, attempt=1))
    assert (0, load(ref(0, attempt=1))) in net.taken()[0]
    net.router.actor_restarted(0)
    (_, bundle), *_ = net.taken()[0]
    assert isinstance(bundle, Bundle)
    assert [m.ref for m in bundle.messages if isinstance(m, LoadWeights)] == [ref(0, attempt=1), ref(1)]


def test_damage_reported_after_the_learner_was_replaced_does_not_matter() -> None:
    net = Net()
    net.publish(ref(0))
    net.router.learner_restarted()
    net.taken()
    net.damaged(ref(0))
    assert net.taken() == ([], [])


def sent(net: Net) -> list[tuple[int, tuple[str, ...]]]:
    """What went to actors since the last call: versions to load and requests, by name."""
    found = []
    for index, message in net.taken()[0]:
        assert isinstance(message, Bundle)
        names = [f"v{m.ref.version}" if isinstance(m, LoadWeights) else m.request_id for m in message.messages]
        found.append((index, tuple(names)))
    return found


def test_the_requests_of_an_actor_that_leaves_go_to_the_others_with_the_weights_they_are_pinned_to() -> None:
    net = Net(actors=2)
    net.publish(ref(0), request("a", n=2), request("val", version=0, pinned=True))
    net.publish(ref(1), request("b", version=1), request("c", version=1, n=3))
    net.live(ref(1), index=0)
    net.live(ref(0), index=1)
    assert sent(net) == [(0, ("v0", "a")), (1, ("v0", "val")), (0, ("v1", "c")), (1, ("v1", "b"))]
    net.router.actor_left(1)
    assert sent(net) == [(0, ("v0", "v1", "val", "b"))]
    assert net.deleted == []  # version 0 is needed again
    net.router.from_actor(0, GroupResult("val", ()))
    net.live(ref(1), index=0)
    assert net.deleted == [ref(0)]  # the absent actor does not count
    net.publish(ref(2), request("d", version=2))
    assert sent(net)[-1] == (0, ("v2", "d"))


def test_requests_wait_while_all_actors_are_absent() -> None:
    net = Net(actors=1)
    net.publish(ref(0), request("a"))
    net.router.actor_left(0)
    net.publish(ref(1), request("b", version=1))
    assert sent(net) == [(0, ("v0", "a"))]
    assert net.router.outstanding == 2
    net.router.actor_restarted(0)
    assert sent(net) == [(0, ("v1", "a", "b"))]


def test_an_actor_that_is_added_gets_the_newest_weights_and_then_its_share() -> None:
    net = Net(actors=1)
    net.publish(ref(0), request("a", n=4))
    net.router.actor_restarted(1)
    assert sent(net) == [(0, ("v0", "a")), (1, ("v0",))]
    net.publish(ref(1), request("b", version=1))
    assert sent(net) == [(0, ("v1",)), (1, ("v1", "b"))]


@given(st.data())
def test_actors_may_come_and_go_without_losing_or_repeating_a_result(data: st.DataObject) -> None:
    """Each present actor holds exactly its own outstanding requests; every request ends once."""
    net = Net(actors=3)
    held: dict[int, dict[str, GenerateGroup]] = {0: {}, 1: {}, 2: {}}  # by present actor
    issued, version = 0, 0

    def deliver() -> None:
        for index, message in net.taken()[0]:
            assert index in held, "sent to an absent actor"
            assert isinstance(message, Bundle)
            held[index].update({m.request_id: m for m in message.messages if isinstance(m, GenerateGroup)})

    done: list[str] = []
    for _ in range(data.draw(st.integers(5, 30))):
        action = data.draw(st.sampled_from(["publish", "finish", "leave", "join"]))
        if action == "publish":
            names = [f"r{issued + i}" for i in range(data.draw(st.integers(0, 4)))]
            issued += len(names)
            net.publish(ref(version), *(request(name) for name in names))
            version += 1
        elif action == "finish" and (busy := [i for i in held if held[i]]):
            index = data.draw(st.sampled_from(busy))
            net.router.from_actor(index, GroupResult(held[index].popitem()[0], ()))
            done += [m.request_id for m in net.to_learner if isinstance(m, GroupResult)]
        elif action == "leave" and held:
            index = data.draw(st.sampled_from(sorted(held)))
            del held[index]
            net.router.actor_left(index)
        elif action == "join":
            index = data.draw(st.sampled_from([i for i in range(max(held, default=2) + 2) if i not in held][:1]))
            held[index] = {}
            net.router.actor_restarted(index)
        deliver()
        assert len(done) == len(set(done))
        if held:
            assert sum(map(len, held.values())) == net.router.outstanding == issued - len(done)


def test_cancelled_requests_end_where_they_run_and_are_not_outstanding() -> None:
    """A result that was on its way is not forwarded, and the load of the actors is that of what is left."""
    net = Net(actors=2)
    net.publish(ref(0), *(request(name, n=n) for name, n in (("a", 4), ("b", 1), ("c", 1), ("d", 2))))
    net.taken()  # a runs on actor 0, the others on actor 1
    net.router.from_actor(1, GroupResult("d", ()))
    net.router.from_learner(Bundle((Cancel(("a", "b", "d", "unknown")), request("e", n=1))))
    to_actor, to_learner = net.taken()
    assert [(i, m.messages[0]) for i, m in to_actor if isinstance(m, Bundle)] == [
        (0, Cancel(("a",))),
        (1, Cancel(("b",))),
    ]
    assert [i for i, m in to_actor if isinstance(m, Bundle) and len(m.messages) == 2] == [0]  # the less loaded one
    assert to_learner == [GroupResult("d", ())]
    assert net.router.outstanding == 2
    net.router.from_actor(0, GroupResult("a", ()))
    assert net.taken() == ([], [])
    net.router.actor_restarted(0)
    ((_, again),) = net.taken()[0]
    assert isinstance(again, Bundle)
    assert [m.request_id for m in again.messages if isinstance(m, GenerateGroup)] == ["e"]


def test_a_request_that_waits_for_an_actor_can_be_cancelled() -> None:
    net = Net()
    net.router.actor_left(0)
    net.publish(ref(0), request("a"), request("b"))
    net.router.from_learner(Bundle((Cancel(("a",)),)))
    net.taken()
    net.router.actor_restarted(0)
    ((_, bundle),) = net.taken()[0]
    assert isinstance(bundle, Bundle)
    assert [m.request_id for m in bundle.messages if isinstance(m, GenerateGroup)] == ["b"]
