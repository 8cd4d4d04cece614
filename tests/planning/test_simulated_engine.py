"""The simulated engine alone: when sequences end, what holds it, and how many run at once."""

from __future__ import annotations

import numpy as np
import pytest

from grpo_gsm8k.planning.rates import EngineRates, Lengths
from grpo_gsm8k.planning.simulated_clock import SimulatedClock
from grpo_gsm8k.planning.simulated_engine import SimulatedEngine, drawn
from grpo_gsm8k.transport.protocol import GenerateGroup, GroupResult, SamplingSpec, WeightsLive, WeightsRef
from grpo_gsm8k.transport.weights import Canary, VerifiedWeights

RATES = EngineRates(step_s=1.0, sequence_s=0.5, prompt_token_s=0.1, max_sequences=4, load_s=3.0, verify_s=0.0)


def request(name: str, n: int = 1, priority: int = 0, pinned: bool = False, limit: int = 100) -> GenerateGroup:
    sampling = SamplingSpec(1.0, 1.0, limit, 0, (1,))
    return GenerateGroup(name, np.zeros(5, np.int32), n, sampling, 0, pinned, priority=priority)


def weights(version: int) -> VerifiedWeights:
    return VerifiedWeights(WeightsRef(version, ""), "model", Canary((), ()), 0.0)


class Bench:
    """An engine, whose events are noted until nothing runs."""

    def __init__(self, rates: EngineRates, length: int) -> None:
        self.clock = SimulatedClock()
        self.engine = SimulatedEngine(rates, Lengths(((length,),), (length,), 5), self.clock)
        self.ended: dict[str, float] = {}

    def run(self) -> dict[str, float]:
        while (due := self.engine.next_event) is not None:
            self.clock.at(due, self.note)
            self.clock.advance()
        return self.ended

    def note(self) -> None:
        for result in self.engine.step():
            name = result.request_id if isinstance(result, GroupResult) else "live"
            self.ended[name] = self.clock()


def test_a_step_is_bound_by_memory_or_by_arithmetic() -> None:
    rates = EngineRates(1.0, 0.5, 0.0, 9, 0.0, 0.0, weights_s=10.0, cache_s=1.0, compute_s=4.0)
    assert rates.step(2) == pytest.approx(1 + 2 * 0.5 + 10 + 2 * 1)
    assert rates.step(5) == pytest.approx(1 + 5 * 0.5 + 5 * 4)
    assert rates.slower(2.0).step(5) == pytest.approx(2 * rates.step(5))


def test_a_sequence_takes_its_prompt_and_its_steps() -> None:
    bench = Bench(RATES, length=10)
    bench.engine.add(request("a"))
    assert bench.run() == pytest.approx({"a": 0.5 + 10 * 1.5})
    assert bench.engine.busy_s == pytest.approx(bench.ended["a"])


def test_one_that_joins_slows_the_other_down() -> None:
    """Prompts of 0.5 s hold both. `a` does 4 steps of 1.5 s alone, 6 of 2 s beside `b`, which then is alone again."""
    bench = Bench(RATES, length=10)
    bench.engine.add(request("a"))
    bench.clock.sleep(0.5 + 4 * 1.5)
    bench.engine.add(request("b"))
    a_ends = 0.5 + 4 * 1.5 + 0.5 + 6 * 2.0
    assert bench.run() == pytest.approx({"a": a_ends, "b": a_ends + 4 * 1.5})


def test_more_sequences_than_places_run_one_after_another_by_priority() -> None:
    """6 sequences, 4 places: the two of the less urgent group run when the first four have ended."""
    bench = Bench(RATES, length=10)
    bench.engine.add(request("late", n=2, priority=2))
    bench.engine.add(request("soon", n=4, priority=0))
    soon = 0.5 + 10 * 3.0
    assert bench.run() == pytest.approx({"soon": soon, "late": soon + 0.5 + 10 * 2.0})


def test_a_swap_stops_the_engine_and_computes_contexts_again() -> None:
    """After 4 tokens: 3 s for the swap, and 5 + 4 tokens of context."""
    bench = Bench(RATES, length=10)
    bench.engine.add(request("a"))
    bench.clock.sleep(0.5 + 4 * 1.5)
    bench.engine.load(weights(1))
    assert not bench.engine.step()
    bench.run()
    live = 0.5 + 4 * 1.5 + 3.0 + 9 * 0.1
    assert bench.ended == pytest.approx({"live": live, "a": live + 6 * 1.5})


def test_a_swap_without_requests_is_live_after_it() -> None:
    bench = Bench(RATES, length=10)
    bench.engine.load(weights(0))
    bench.clock.sleep(3.0)
    (live,) = bench.engine.step()
    assert isinstance(live, WeightsLive)
    assert live.ref.version == 0


def test_lengths_are_those_of_recorded_groups_up_to_the_limit() -> None:
    lengths = Lengths(((3, 90), (4, 70)), (8,), 5)
    for name in map(str, range(20)):
        assert drawn(lengths, request(name, n=2, limit=80)) in {(3, 80), (4, 70)}
        assert drawn(lengths, request(name, pinned=True)) == (8,)
        assert drawn(lengths, request(name, n=2)) == drawn(lengths, request(name, n=2))
