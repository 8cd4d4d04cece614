"""The request router: assigns requests to actors and tracks outstanding requests and published weight versions.

Pure bookkeeping without processes: messages leave through callbacks, so tests can run it alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.transport.protocol import Bundle, Failed, GenerateGroup, GroupResult, LoadWeights, Reset, WeightsLive

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpo_gsm8k.transport.protocol import WeightsRef


class Router:
    """Routes messages between one learner and `actors` actors, each addressed by its index."""

    def __init__(
        self,
        actors: int,
        to_actor: Callable[[int, object], None],
        to_learner: Callable[[object], None],
        delete: Callable[[WeightsRef], None],
        repeat_bundles: bool = False,
    ) -> None:
        """`delete` is called for weights that no actor may load anymore.

        With `repeat_bundles` a new actor also repeats the finished requests of the bundles that its predecessor left
        unfinished: its batches, and with them the last bits of its numbers, are then those of an undisturbed actor.
        """
        self._to_actor = to_actor
        self._to_learner = to_learner
        self._delete = delete
        self._repeat_bundles = repeat_bundles
        self._bundles: list[list[list[GenerateGroup]]] = [[] for _ in range(actors)]  # by actor, unfinished ones
        self._outstanding: dict[str, GenerateGroup] = {}
        self._actor_of: dict[str, int] = {}
        self._load = [0] * actors  # outstanding completions of each actor
        self._published: list[WeightsRef] = []  # not deleted yet, oldest first
        self._current: list[WeightsRef] = []  # those of the running learner
        self._live: list[WeightsRef | None] = [None] * actors

    @property
    def published(self) -> tuple[WeightsRef, ...]:
        """Weights that are not deleted yet, oldest first, those of earlier learners included."""
        return tuple(self._published)

    @property
    def outstanding(self) -> int:
        """Number of requests without a result."""
        return len(self._outstanding)

    def from_learner(self, bundle: Bundle) -> None:
        """Send weights to every actor and each request to the least loaded one, as one bundle per actor."""
        shares: list[list[GenerateGroup | LoadWeights]] = [[] for _ in self._live]
        for message in bundle.messages:
            if isinstance(message, LoadWeights):
                self._published.append(message.ref)
                self._current.append(message.ref)
                for share in shares:
                    share.append(message)
            else:
                shares[self._assign(message)].append(message)
        for index, share in enumerate(shares):
            if share:
                self._bundles[index] = self._unfinished_bundles(index)
                self._bundles[index].append([m for m in share if not isinstance(m, LoadWeights)])
                self._to_actor(index, Bundle(tuple(share)))

    def from_actor(self, index: int, message: GroupResult | Failed | WeightsLive) -> None:
        """Forward the result of an outstanding request, exactly once; note which weights are live."""
        if isinstance(message, WeightsLive):
            self._live[index] = message.ref
            if message.ref in self._current:
                self._to_learner(message)
        elif (request := self._outstanding.pop(message.request_id, None)) is not None:
            self._load[self._actor_of.pop(message.request_id)] -= request.n
            self._to_learner(message)
        self._prune()

    def actor_restarted(self, index: int) -> None:
        """Send a new actor the newest weights, older ones for pinned requests, and its predecessor's requests."""
        self._live[index] = None
        if self._repeat_bundles:
            requests = [request for bundle in self._unfinished_bundles(index) for request in bundle]
        else:
            requests = [request for i, request in self._outstanding.items() if self._actor_of[i] == index]
        pinned = {request.min_version for request in requests if request.pinned}
        loads = [LoadWeights(r) for r in self._current if r.version in pinned or r == self._current[-1]]
        if loads or requests:
            self._to_actor(index, Bundle((*loads, *requests)))

    def learner_restarted(self) -> None:
        """Drop the old learner's requests; its weights stay until every actor has loaded newer ones."""
        self._outstanding.clear()
        self._actor_of.clear()
        self._bundles = [[] for _ in self._live]
        self._load = [0] * len(self._live)
        self._current.clear()
        for index in range(len(self._live)):
            self._to_actor(index, Reset())

    def _unfinished_bundles(self, index: int) -> list[list[GenerateGroup]]:
        return [bundle for bundle in self._bundles[index] if any(r.request_id in self._outstanding for r in bundle)]

    def _assign(self, request: GenerateGroup) -> int:
        index = self._load.index(min(self._load))
        self._load[index] += request.n
        self._outstanding[request.request_id] = request
        self._actor_of[request.request_id] = index
        return index

    def _prune(self) -> None:
        """Delete weights older than what every actor runs, except the newest and those that a request is pinned to."""
        if any(live is None or live not in self._published for live in self._live):
            return
        oldest_live = min(self._published.index(live) for live in self._live if live is not None)
        pinned = {request.min_version for request in self._outstanding.values() if request.pinned}
        newest = self._published[-1]
        for ref in self._published[:oldest_live]:
            if ref != newest and not (ref.version in pinned and ref in self._current):
                self._published.remove(ref)
                self._delete(ref)
