"""The request router: assigns requests to actors and tracks outstanding requests and published weight versions.

Pure bookkeeping without processes: messages leave through callbacks, so tests can run it alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.errors import WeightsError
from grpo_gsm8k.transport.protocol import (
    Bundle,
    Cancel,
    Failed,
    GenerateGroup,
    GroupResult,
    LoadWeights,
    PublishAgain,
    Reset,
    WeightsDamaged,
    WeightsLive,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpo_gsm8k.transport.protocol import WeightsRef

MAX_PUBLISHED_AGAIN = 2  # per version: damage that repeats has a cause that publishing does not cure


class Router:
    """Routes messages between one learner and `actors` actors, each addressed by its index.

    Actors may leave and join while requests are outstanding: those of an absent actor go to the others.
    """

    def __init__(
        self,
        actors: int,
        to_actor: Callable[[int, object], None],
        to_learner: Callable[[object], None],
        delete: Callable[[WeightsRef], None],
        discard: Callable[[WeightsRef], None],
        repeat_bundles: bool = False,
    ) -> None:
        """`delete` is called for weights that no actor may load anymore, `discard` for those that all found damaged.

        With `repeat_bundles` a new actor also repeats the finished requests of the bundles that its predecessor left
        unfinished: its batches, and with them the last bits of its numbers, are then those of an undisturbed actor.
        """
        self._to_actor = to_actor
        self._to_learner = to_learner
        self._delete = delete
        self._discard = discard
        self._repeat_bundles = repeat_bundles
        self._bundles: list[list[list[GenerateGroup]]] = [[] for _ in range(actors)]  # by actor, unfinished ones
        self._outstanding: dict[str, GenerateGroup] = {}
        self._actor_of: dict[str, int] = {}  # without the requests that wait for an actor
        self._load = [0] * actors  # outstanding completions of each actor
        self._absent: set[int] = set()  # actors that have left: nothing is sent to them
        self._published: list[WeightsRef] = []  # not deleted yet, oldest first
        self._current: list[WeightsRef] = []  # those of the running learner
        self._live: list[WeightsRef | None] = [None] * actors
        self._damaged: dict[WeightsRef, set[int]] = {}  # of `_current`: the actors that cannot load them
        # For which of them the learner was asked, and whether for a pinned request.
        self._asked: dict[WeightsRef, bool] = {}

    @property
    def published(self) -> tuple[WeightsRef, ...]:
        """Weights that are not deleted yet, oldest first, those of earlier learners included."""
        return tuple(self._published)

    @property
    def outstanding(self) -> int:
        """Number of requests without a result."""
        return len(self._outstanding)

    def from_learner(self, bundle: Bundle) -> None:
        """Send weights to every actor and each request to the least loaded one, as one bundle per actor.

        A version that was published before replaces a damaged one: it goes to those that found it damaged. Requests
        that are cancelled are not outstanding any more, so nothing is forwarded for them.
        """
        shares: list[list[GenerateGroup | LoadWeights | Cancel]] = [[] for _ in self._live]
        for message in bundle.messages:
            if isinstance(message, LoadWeights):
                for loading in self._add_weights(message.ref):
                    shares[loading].append(message)
            elif isinstance(message, Cancel):
                self._cancel(message, shares)
            else:
                self._outstanding[message.request_id] = message
                if (index := self._assign(message)) is not None:
                    shares[index].append(message)
        self._send_shares(shares)

    def _cancel(self, message: Cancel, shares: Sequence[list[GenerateGroup | LoadWeights | Cancel]]) -> None:
        """Forget the cancelled requests that are outstanding, and add each to the share of its actor."""
        of_actor: dict[int, list[str]] = {}
        for request_id in message.request_ids:
            request = self._outstanding.pop(request_id, None)
            index = self._actor_of.pop(request_id, None)
            if request is not None and index is not None:
                self._load[index] -= request.n
                of_actor.setdefault(index, []).append(request_id)
        for index, request_ids in of_actor.items():
            shares[index].append(Cancel(tuple(request_ids)))

    def from_actor(self, index: int, message: GroupResult | Failed | WeightsLive | WeightsDamaged) -> None:
        """Forward the result of an outstanding request, exactly once; note which weights are live or damaged.

        Raises WeightsError for a version that is damaged once more after it was published again twice.
        """
        if isinstance(message, WeightsDamaged):
            self._note_damaged(index, message.ref, message.reason)
        elif isinstance(message, WeightsLive):
            self._live[index] = message.ref
            if message.ref in self._current:
                self._to_learner(message)
        elif (request := self._outstanding.pop(message.request_id, None)) is not None:
            if (assigned := self._actor_of.pop(message.request_id, None)) is not None:
                self._load[assigned] -= request.n
            self._to_learner(message)
        self._prune()

    def actor_restarted(self, index: int) -> None:
        """Send a new actor the newest weights, older ones for pinned requests, and its predecessor's requests.

        It also gets those that waited because all actors were absent. `index` may be one more than the last actor's.
        """
        self._make_room(index)
        self._absent.discard(index)
        self._live[index] = None
        requests = self._requests_of(index)
        for i, request in self._outstanding.items():
            if i not in self._actor_of:
                self._actor_of[i] = index
                self._load[index] += request.n
                requests.append(request)
        wanted = self._weights_for(requests)
        loads = [LoadWeights(r) for r in wanted if r not in self._damaged]
        if loads or requests:
            self._to_actor(index, Bundle((*loads, *requests)))
        for ref in wanted:
            if ref in self._damaged and ref == self._newest(ref.version):
                self._note_damaged(index, ref, f"weights version {ref.version}: damaged")

    def actor_left(self, index: int) -> None:
        """Give the requests of an actor that has no place now to the others; without any others, they wait."""
        self._make_room(index)
        self._absent.add(index)
        self._live[index] = None
        requests = self._requests_of(index)
        self._bundles[index] = []
        self._load[index] = 0
        shares: list[list[GenerateGroup | LoadWeights | Cancel]] = [[] for _ in self._live]
        for request in requests:
            self._actor_of.pop(request.request_id, None)
        for request in requests:
            # A request that is repeated for its batch alone has its result already.
            if request.request_id in self._outstanding and (other := self._assign(request)) is not None:
                shares[other].append(request)
        for share in shares:
            moved = [request for request in share if isinstance(request, GenerateGroup)]
            share[:0] = [LoadWeights(r) for r in self._weights_for(moved) if r not in self._damaged] if moved else []
        self._send_shares(shares)
        self._prune()

    def learner_restarted(self) -> None:
        """Drop the old learner's requests; its weights stay until every actor has loaded newer ones."""
        self._outstanding.clear()
        self._actor_of.clear()
        self._bundles = [[] for _ in self._live]
        self._load = [0] * len(self._live)
        self._current.clear()
        self._damaged.clear()
        self._asked.clear()
        for index in range(len(self._live)):
            self._to_actor(index, Reset())

    def _make_room(self, index: int) -> None:
        """Know an actor that was added while the run goes on: its index is one more than the last one's."""
        if index == len(self._live):
            self._live.append(None)
            self._load.append(0)
            self._bundles.append([])

    def _send_shares(self, shares: Sequence[Sequence[GenerateGroup | LoadWeights | Cancel]]) -> None:
        """Send each actor its share as one bundle."""
        for index, share in enumerate(shares):
            if share and index not in self._absent:
                self._bundles[index] = self._unfinished_bundles(index)
                self._bundles[index].append([m for m in share if isinstance(m, GenerateGroup)])
                self._to_actor(index, Bundle(tuple(share)))

    def _requests_of(self, index: int) -> list[GenerateGroup]:
        """Return the requests that a new actor in this place has to do."""
        if self._repeat_bundles:
            return [request for bundle in self._unfinished_bundles(index) for request in bundle]
        return [request for i, request in self._outstanding.items() if self._actor_of.get(i) == index]

    def _weights_for(self, requests: Sequence[GenerateGroup]) -> list[WeightsRef]:
        """Return the published weights that an actor needs for these requests: those pinned, and the newest."""
        pinned = {request.min_version for request in requests if request.pinned}
        return [r for r in self._current if r.version in pinned or r == self._current[-1]]

    def _unfinished_bundles(self, index: int) -> list[list[GenerateGroup]]:
        return [bundle for bundle in self._bundles[index] if any(r.request_id in self._outstanding for r in bundle)]

    def _add_weights(self, ref: WeightsRef) -> list[int]:
        """Take note of published weights; returns the actors that are to load them."""
        replaced = self._newest(ref.version)
        if replaced is None:
            self._published.append(ref)
            self._current.append(ref)
            return self._present()
        for refs in (self._published, self._current):
            refs.insert(refs.index(replaced) + 1, ref)
        return sorted(self._damaged[replaced] - self._absent)

    def _present(self) -> list[int]:
        """Return the actors that have not left."""
        return [index for index in range(len(self._live)) if index not in self._absent]

    def _newest(self, version: int) -> WeightsRef | None:
        """Return the last publication of a version by the running learner."""
        return next((ref for ref in reversed(self._current) if ref.version == version), None)

    def _note_damaged(self, index: int, ref: WeightsRef, reason: str) -> None:
        """Send an actor the replacement of weights that it found damaged, or ask the learner for one if it needs one.

        It needs none if a newer version follows that will do.
        """
        if ref not in self._current:
            return  # of a learner that was replaced
        lacking = self._damaged.setdefault(ref, set())
        lacking.add(index)
        if lacking.issuperset(self._present()):
            self._discard(ref)  # before the replacement is written, which may need the space
        newest = self._newest(ref.version)
        if newest is not None and newest != ref:
            self._to_actor(index, Bundle((LoadWeights(newest),)))
            return
        pinned = any(self._is_pinned(i, ref.version) for i in lacking)
        if (pinned and not self._asked.get(ref)) or (ref == self._current[-1] and ref not in self._asked):
            self._asked[ref] = pinned
            attempt = sum(other.version == ref.version for other in self._current)
            if attempt > MAX_PUBLISHED_AGAIN:
                raise WeightsError(f"{reason}; it was published {attempt} times and damaged each time")
            self._to_learner(PublishAgain(ref.version, attempt, pinned))

    def _is_pinned(self, index: int, version: int) -> bool:
        """Whether an actor has an outstanding request for exactly this version."""
        mine = (request for i, request in self._outstanding.items() if self._actor_of.get(i) == index)
        return any(request.pinned and request.min_version == version for request in mine)

    def _assign(self, request: GenerateGroup) -> int | None:
        """Give a request to the least loaded actor; None: all have left, it waits."""
        index = min(self._present(), key=lambda present: self._load[present], default=None)
        if index is not None:
            self._load[index] += request.n
            self._actor_of[request.request_id] = index
        return index

    def _prune(self) -> None:
        """Delete weights older than what every actor runs, except the newest and those that a request is pinned to."""
        live = [self._live[index] for index in self._present()]
        if not live or any(ref is None or ref not in self._published for ref in live):
            return
        oldest_live = min(self._published.index(ref) for ref in live if ref is not None)
        pinned = {request.min_version for request in self._outstanding.values() if request.pinned}
        newest = self._published[-1]
        for ref in self._published[:oldest_live]:
            if ref != newest and not (ref.version in pinned and ref in self._current):
                self._published.remove(ref)
                self._delete(ref)
