"""A whole run in simulated time: the real router, actor loop, client, pacing and validation requests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.planning.simulated_actor import SimulatedActor
from grpo_gsm8k.planning.simulated_clock import SimulatedClock
from grpo_gsm8k.planning.simulated_learner import SimulatedLearner
from grpo_gsm8k.planning.simulated_network import SimulatedNetwork
from grpo_gsm8k.planning.steady_state import LEARNER, SteadyState, TimedSpan, steady_state, unsteady
from grpo_gsm8k.runtime.router import Router
from grpo_gsm8k.transport.protocol import Bundle, Failed, GroupResult, Span, WeightsDamaged, WeightsLive

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.planning.rates import Pipeline
    from grpo_gsm8k.transport.protocol import WeightsRef

UPDATES = 12  # simulated after the first ones; their lengths differ as those of real updates do


@dataclass(frozen=True, slots=True)
class Size:
    """How large a run is: engines, ranks of the learner, updates that generation may be ahead, and the network.

    `gbit_s` None: all engines are on the learner's machine.
    """

    actors: int
    ranks: int
    max_staleness: int
    gbit_s: float | None = None


class SimulatedRun:
    """One learner and its actors around the real router."""

    def __init__(self, config: Config, pipeline: Pipeline) -> None:
        """Nothing has happened. Raises UserError for what cannot be foreseen."""
        check_foreseeable(config)
        actors = config.actor.replicas
        self.spans: list[TimedSpan] = []
        self._clock = SimulatedClock()
        self._message_s = pipeline.network.message_s
        self._router = Router(actors, self._to_actor, self._to_learner, _keep, _keep)
        self._network = SimulatedNetwork(pipeline.network, actors, self._clock)
        self._learner = SimulatedLearner(config, pipeline, self._clock, self._from_learner)
        self._actors = [self._actor(index, config, pipeline) for index in range(actors)]

    def run(self) -> list[TimedSpan]:
        """Let the run happen; returns its timeline."""
        self._learner.train()
        return self.spans

    def _actor(self, index: int, config: Config, pipeline: Pipeline) -> SimulatedActor:
        return SimulatedActor(pipeline, config.actor.device, self._clock, lambda m: self._from_actor(index, m))

    def _from_learner(self, message: object) -> None:
        if isinstance(message, Bundle):
            self._router.from_learner(message)
        elif isinstance(message, Span):
            self._note(LEARNER, message)

    def _to_actor(self, index: int, message: object) -> None:
        self._network.send(index, message, self._actors[index].deliver)

    def _from_actor(self, index: int, message: object) -> None:
        if isinstance(message, GroupResult | Failed | WeightsLive | WeightsDamaged):
            self._router.from_actor(index, message)
        elif isinstance(message, Span):
            self._note(f"actor-{index}", message)

    def _to_learner(self, message: object) -> None:
        self._clock.at(self._clock() + self._message_s, lambda: self._learner.channel.messages.append(message))

    def _note(self, row: str, span: Span) -> None:
        self.spans.append(TimedSpan(row, span.name, span.version, self._clock() - span.seconds, span.seconds))


def simulate(config: Config, pipeline: Pipeline, updates: int = UPDATES) -> SteadyState:
    """Predict the steady state of a run, from so many updates of it."""
    staleness = config.policy_gradient.max_staleness
    total = unsteady(staleness) + updates + staleness
    pg = config.policy_gradient.model_copy(update={"updates": total, "epochs": None})
    spans = SimulatedRun(config.model_copy(update={"policy_gradient": pg}), pipeline).run()
    return steady_state(spans, config.actor.replicas, staleness)


def predict(config: Config, pipeline: Pipeline, size: Size, updates: int = UPDATES) -> SteadyState:
    """Predict the steady state of a run of another size. Each engine has the rates of the pipeline."""
    actor = config.actor.model_copy(update={"replicas": size.actors})
    pg = config.policy_gradient.model_copy(update={"max_staleness": size.max_staleness})
    network = replace(pipeline.network, gbit_s=size.gbit_s)
    learner = replace(pipeline.learner, ranks=size.ranks)
    sized = replace(pipeline, network=network, learner=learner)
    return simulate(config.model_copy(update={"actor": actor, "policy_gradient": pg}), sized, updates)


def check_foreseeable(config: Config) -> None:
    """Raise UserError for a run whose number of completions depends on their rewards, or on how late they are."""
    if config.policy_gradient.active_sampling:
        raise UserError(
            "doctor.plan cannot foresee how many groups policy_gradient.active_sampling replaces: set "
            "policy_gradient.active_sampling=0 for the plan"
        )
    if config.data.sampler != "uniform":
        raise UserError("doctor.plan cannot foresee data.sampler=difficulty: set data.sampler=uniform for the plan")
    late = config.policy_gradient.late
    if late != "wait":
        raise UserError(
            f"doctor.plan does not know policy_gradient.late={late}: set policy_gradient.late=wait for the plan"
        )


def _keep(_: WeightsRef) -> None:
    """Delete nothing: there are no files."""
