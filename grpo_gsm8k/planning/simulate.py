"""A whole run in simulated time: the real router, actor loop, client, pacing and validation requests."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.planning.simulated_actor import SimulatedActor
from grpo_gsm8k.planning.simulated_clock import SimulatedClock
from grpo_gsm8k.planning.simulated_learner import SimulatedLearner
from grpo_gsm8k.planning.simulated_network import SimulatedNetwork
from grpo_gsm8k.runtime.router import Router
from grpo_gsm8k.transport.protocol import Bundle, Failed, GroupResult, Span, WeightsDamaged, WeightsLive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.planning.rates import Pipeline
    from grpo_gsm8k.transport.protocol import WeightsRef


@dataclass(frozen=True, slots=True)
class Prediction:
    """A run in its steady state: without the first updates, in which the engines' lead is built up.

    Idle shares are fractions of the time: the learner waits for completions, the engines have nothing to do. The
    network's share is what the copies of weights use of the learner's connection.
    """

    step_s: float
    learner_idle: float
    engines_idle: float
    network_busy: float
    spans: Mapping[str, float]  # by name, of learner and engines: seconds in all

    @property
    def updates_per_hour(self) -> float:
        """Policy updates per hour."""
        return 3600 / self.step_s


@dataclass(frozen=True, slots=True)
class _Mark:
    """What has been counted up to an update."""

    ended_s: float
    busy_s: float
    copying_s: float


class SimulatedRun:
    """One learner and its actors around the real router."""

    def __init__(self, config: Config, pipeline: Pipeline) -> None:
        """Nothing has happened. Raises UserError for what cannot be foreseen."""
        check_foreseeable(config)
        actors = config.actor.replicas
        self._clock = SimulatedClock()
        self._message_s = pipeline.network.message_s
        self._marks: list[_Mark] = []
        self._spans: dict[str, float] = defaultdict(float)
        self._router = Router(actors, self._to_actor, self._to_learner, _keep, _keep)
        self._network = SimulatedNetwork(pipeline.network, actors, self._clock)
        self._learner = SimulatedLearner(config, pipeline, self._clock, self._from_learner)
        self._actors = [self._actor(index, config, pipeline) for index in range(actors)]

    def predict(self, skipped: int) -> Prediction:
        """Let the run happen; the first `skipped` updates do not count."""
        self._learner.train()
        updates = self._learner.updates
        first, last = self._marks[skipped - 1] if skipped else _Mark(0.0, 0.0, 0.0), self._marks[-1]
        seconds = last.ended_s - first.ended_s
        waited = sum(update.waited_s for update in updates[skipped:])
        busy = (last.busy_s - first.busy_s) / len(self._actors)
        return Prediction(
            step_s=seconds / (len(updates) - skipped),
            learner_idle=waited / seconds,
            engines_idle=max(0.0, 1 - busy / seconds),
            network_busy=(last.copying_s - first.copying_s) / seconds,
            spans=dict(self._spans),
        )

    def _actor(self, index: int, config: Config, pipeline: Pipeline) -> SimulatedActor:
        return SimulatedActor(pipeline, config.actor.device, self._clock, lambda m: self._from_actor(index, m))

    def _from_learner(self, message: object) -> None:
        if isinstance(message, Bundle):
            self._router.from_learner(message)
        elif isinstance(message, Span):
            self._note(message)
            if message.name == "records":
                busy = sum(actor.engine.busy_s for actor in self._actors)
                self._marks.append(_Mark(self._clock(), busy, self._network.busy_s))

    def _to_actor(self, index: int, message: object) -> None:
        self._network.send(index, message, self._actors[index].deliver)

    def _from_actor(self, index: int, message: object) -> None:
        if isinstance(message, GroupResult | Failed | WeightsLive | WeightsDamaged):
            self._router.from_actor(index, message)
        elif isinstance(message, Span):
            self._note(message)

    def _to_learner(self, message: object) -> None:
        self._clock.at(self._clock() + self._message_s, lambda: self._learner.channel.messages.append(message))

    def _note(self, span: Span) -> None:
        self._spans[span.name] += span.seconds


def simulate(config: Config, pipeline: Pipeline, updates: int = 12) -> Prediction:
    """Predict the steady state of a run with so many updates after the first `max_staleness + 2`."""
    skipped = config.policy_gradient.max_staleness + 2
    pg = config.policy_gradient.model_copy(update={"updates": updates + skipped, "epochs": None})
    return SimulatedRun(config.model_copy(update={"policy_gradient": pg}), pipeline).predict(skipped)


def with_size(config: Config, actors: int, max_staleness: int) -> Config:
    """Return the configuration with another number of engines, and of updates that generation may be ahead."""
    actor = config.actor.model_copy(update={"replicas": actors})
    pg = config.policy_gradient.model_copy(update={"max_staleness": max_staleness})
    return config.model_copy(update={"actor": actor, "policy_gradient": pg})


def with_ranks(pipeline: Pipeline, ranks: int) -> Pipeline:
    """Return the pipeline with another number of ranks of the learner."""
    return replace(pipeline, learner=replace(pipeline.learner, ranks=ranks))


def with_network(pipeline: Pipeline, gbit_s: float | None) -> Pipeline:
    """Return the pipeline with engines on other machines, behind a network of so many Gbit/s."""
    return replace(pipeline, network=replace(pipeline.network, gbit_s=gbit_s))


def check_foreseeable(config: Config) -> None:
    """Raise UserError for a run whose number of completions depends on their rewards."""
    if config.policy_gradient.active_sampling:
        raise UserError(
            "doctor.plan cannot foresee how many groups policy_gradient.active_sampling replaces: set "
            "policy_gradient.active_sampling=0 for the plan"
        )
    if config.data.sampler != "uniform":
        raise UserError("doctor.plan cannot foresee data.sampler=difficulty: set data.sampler=uniform for the plan")


def _keep(_: WeightsRef) -> None:
    """Delete nothing: there are no files."""


def bottleneck(predictions: Sequence[Prediction]) -> int | None:
    """Return the index of the first prediction whose learner hardly waits (`LEARNER_BOUND`); None if all do."""
    found = (i for i, prediction in enumerate(predictions) if prediction.learner_idle <= LEARNER_BOUND)
    return next(found, None)


LEARNER_BOUND = 0.05  # of its time: a learner that waits no longer than this is the limit
