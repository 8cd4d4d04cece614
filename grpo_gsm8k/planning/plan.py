"""How many engines a learner needs: predictions for more and more of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.planning.simulate import Size, predict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.planning.rates import Pipeline
    from grpo_gsm8k.planning.steady_state import SteadyState

ACTORS = (1, 2, 4, 8, 16, 32, 64)
GBIT_S = (1.0, 10.0, 100.0)
LEARNER_BOUND = 0.05  # of its time: a learner that waits no longer than this is the limit
GAIN = 0.05  # of the updates per hour: engines that add less are not worth it


@dataclass(frozen=True, slots=True)
class PlanRow:
    """Predictions for a number of engines: on one machine, and in a cluster for each network of `GBIT_S`."""

    actors: int
    state: SteadyState
    over_network: tuple[SteadyState, ...]


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """Rows by number of engines.

    `learner_bound`: the fewest engines for which the learner is the limit. Where it waits for every update's
    completions however many there are, it is None, and `enough` says beyond how many others add less than `GAIN`.
    """

    rows: tuple[PlanRow, ...]
    learner_bound: int | None
    enough: int


def make_plan(config: Config, pipeline: Pipeline, actors: Sequence[int] = ACTORS) -> EnginePlan:
    """Predict the run with so many engines, the learner and the staleness as configured."""

    def state_of(count: int, gbit_s: float | None = None) -> SteadyState:
        size = Size(count, pipeline.learner.ranks, config.policy_gradient.max_staleness, gbit_s)
        return predict(config, pipeline, size)

    networks = GBIT_S if config.cluster.kind == "ray" else ()
    rows = tuple(PlanRow(n, state_of(n), tuple(state_of(n, speed) for speed in networks)) for n in actors)
    most = max(row.state.updates_per_hour for row in rows)

    def is_bound(state: SteadyState) -> bool:
        return state.learner_idle <= LEARNER_BOUND

    def is_enough(state: SteadyState) -> bool:
        return state.updates_per_hour >= (1 - GAIN) * most

    bound = is_bound(rows[-1].state)
    return EnginePlan(
        rows,
        _fewest(rows, is_bound, state_of) if bound else None,
        _fewest(rows, is_enough, state_of),
    )


def _fewest(
    rows: Sequence[PlanRow], holds: Callable[[SteadyState], bool], state_of: Callable[[int], SteadyState]
) -> int:
    """Return the fewest engines of which something holds that more engines do not change; between rows by bisection."""
    index = next((i for i, row in enumerate(rows) if holds(row.state)), len(rows) - 1)
    high, low = rows[index].actors, rows[index - 1].actors if index else 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(state_of(middle)) else (middle, high)
    return high
