"""Waiting for late completions, dropping them, or going on with them: `make bench-late`.

Requests, pacing, drops and samples are those of a run: `Rollouts`, `Client`, and the scripted engine with lognormal
lengths. Only time is simulated, so the figures depend on neither the machine nor its load: a step of the engine takes
`--step-ms` however many sequences run, an update `--token-us` for each sampled token, publishing nothing. A seed gives
the same lengths to the same prompts whatever `policy_gradient.late` is.
"""

from __future__ import annotations

import argparse
import statistics
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cli import load_config
from grpo_gsm8k.actor import scripted_engine
from grpo_gsm8k.actor.scripted_engine import ScriptedEngine, lognormal_length
from grpo_gsm8k.grading import answers, rewards, scoring
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.learner.client import Client
from grpo_gsm8k.learner.prompt_order import NO_PROMPTS
from grpo_gsm8k.learner.rollout_batch import assemble
from grpo_gsm8k.learner.rollouts import TOO_STALE, Rollouts
from grpo_gsm8k.learner.task import GradedCompletion, Item
from grpo_gsm8k.runtime.actor_process import engine_spec
from grpo_gsm8k.transport.protocol import Bundle, Cancel, GenerateGroup, GroupResult, LoadWeights, WeightsRef
from grpo_gsm8k.transport.weights import Canary, VerifiedWeights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.learner.batching import Sample
    from grpo_gsm8k.learner.rollout_batch import Batch
    from grpo_gsm8k.transport.protocol import Completion

WARM_UP = 4  # updates that are not measured: all requests of the first ones begin at once
GROUP = 8
PROMPTS = 16  # per update
LONGEST = 512  # tokens per completion; the median is an eighth
ITEMS = [Item(Problem(str(i), "", "", "1"), np.array([5], dtype=np.int32)) for i in range(10_000)]


class SimulatedEngine:
    """The scripted engine behind the learner's channel; `clock` is the simulated time in seconds."""

    def __init__(self, config: Config, step_s: float) -> None:
        """Generate nothing before the first weights."""
        self.clock = 0.0
        self.seeds: list[int] = []  # of all completions that were requested
        self._engine = ScriptedEngine(engine_spec(config, Path("no model"), 0, 1))
        self._step_s = step_s
        self._results: deque[GroupResult] = deque()

    def send(self, message: object) -> None:
        """Take a bundle at once, as between two steps; ignore reports."""
        for each in message.messages if isinstance(message, Bundle) else ():
            match each:
                case LoadWeights(ref):
                    self._engine.load(VerifiedWeights(ref, "model", Canary((), ()), 0.0))
                case Cancel(request_ids):
                    self._engine.abort(request_ids)
                case GenerateGroup():
                    self._engine.add(each)
                    self.seeds += range(each.sampling.seed, each.sampling.seed + each.n)

    def receive(self, timeout: float) -> GroupResult | None:
        """Return a result; without one, and with a timeout, let the engine do a step."""
        if not self._results and timeout:
            self.step()
        return self._results.popleft() if self._results else None

    def step(self) -> None:
        """Sample a token for every running sequence."""
        self.clock += self._step_s
        self._results += [result for result in self._engine.step() if isinstance(result, GroupResult)]

    def run_for(self, seconds: float) -> None:
        """Let the engine run while the learner computes."""
        end = self.clock + seconds
        while self.clock + self._step_s <= end:
            self.step()
        self.clock = end


class Grading:
    """A `Task` that gives every other completion of a group a reward, at once."""

    stop_token_ids = (1,)
    stop_texts = ()

    def start_grading(self, item: Item, completions: Sequence[Completion]) -> Future[tuple[GradedCompletion, ...]]:
        """Return the grades."""
        grade = answers.grade("", "1", answers.AnswerFormat.HASH, answers.Locale.EN)
        scores = [rewards.RewardScore(float(i % 2), {}) for i in range(len(completions))]
        graded = [
            GradedCompletion(item, completion, "", grade, score, scoring.ErrorKind.FORMAT)
            for completion, score in zip(completions, scores, strict=True)
        ]
        done: Future[tuple[GradedCompletion, ...]] = Future()
        done.set_result(tuple(graded))
        return done


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. Lengths are those of the completions that were consumed, over those of all that were requested."""

    updates_per_h: float
    trained_per_s: float  # tokens in the loss
    learner_idle: float  # of the time
    dropped: float  # of the requested groups
    stale_tokens: float  # of the consumed tokens: only context, not in the loss
    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Costs:
    """Simulated seconds of a step of the engine, and of the learner for a token."""

    step_s: float
    token_s: float


def simulate(late: str, staleness: int, seed: int, updates: int, costs: Costs) -> Measured:
    """Run the loop of `learner/policy_gradient.py` with simulated time.

    The last updates are not measured: nothing is generated ahead of them, and what is left is consumed whatever its
    length.
    """
    config = _config(late, staleness, seed, updates)
    engine = SimulatedEngine(config, costs.step_s)
    parts: Any = (Client(engine, 0), Grading())  # type: ignore[arg-type]
    client = parts[0]
    rollouts = Rollouts(*parts, ITEMS, [], config, 0, NO_PROMPTS)
    batches, waited, ends, reasons = [], [], [], []
    _publish(rollouts, client, 0)
    for version in range(updates):
        asked = engine.clock
        groups = rollouts.take(version)
        assert groups is not None
        waited.append(engine.clock - asked)
        batches.append(assemble(groups, config, version))
        engine.run_for(costs.token_s * sum(len(sample.completion_ids) for sample in _samples(batches[-1])))
        _publish(rollouts, client, version + 1)
        ends.append(engine.clock)
        reasons += [use.reason for use in rollouts.uses(version)]
    steady = range(WARM_UP, updates - staleness)
    seconds = ends[steady.stop - 1] - ends[steady.start - 1]
    requested = np.array([min(lognormal_length(each, LONGEST), LONGEST) for each in engine.seeds])
    consumed = np.array([len(s.completion_ids) for version in steady for s in _samples(batches[version])])
    quantiles = [float(np.quantile(consumed, q) / np.quantile(requested, q)) for q in (0.5, 0.9, 0.99)]
    trained = sum(int(s.mask.sum()) for version in steady for s in _samples(batches[version]))
    return Measured(
        3600 * len(steady) / seconds,
        trained / seconds,
        sum(waited[version] for version in steady) / seconds,
        reasons.count(TOO_STALE) / len(reasons),
        statistics.mean(batches[version].stale_frac for version in steady),
        float(consumed.mean() / requested.mean()),
        *quantiles,
    )


def _config(late: str, staleness: int, seed: int, updates: int) -> Config:
    return load_config(
        [
            *("command=policy_gradient", "preset=cpu_demo", "actor.max_model_len=1024"),
            *("actor.engine=scripted", "actor.scripted_lengths=lognormal", f"seed={seed}"),
            f"policy_gradient.late={late}",
            f"policy_gradient.max_staleness={staleness}",
            f"policy_gradient.updates={updates}",
            f"policy_gradient.group_size={GROUP}",
            f"policy_gradient.episodes_per_update={GROUP * PROMPTS}",
            f"policy_gradient.max_new_tokens={LONGEST}",
        ]
    )


def _publish(rollouts: Rollouts, client: Client, version: int) -> None:
    """Send weights and requests in one bundle, as `PolicyGradientSession.publish` does."""
    client.queue(LoadWeights(WeightsRef(version, "")))
    rollouts.request_until(version)
    client.flush()


def _samples(batch: Batch) -> list[Sample]:
    return [sample for group in batch.samples for sample in group]


def _row(runs: Sequence[Measured]) -> str:
    """Format the medians of some runs, with the ranges of speed and idle share."""
    values = {column.name: [getattr(run, column.name) for run in runs] for column in fields(Measured)}
    mid = {name: statistics.median(found) for name, found in values.items()}
    rates, idle = values["updates_per_h"], values["learner_idle"]
    speed = f"{mid['updates_per_h']:.0f} ({min(rates):.0f} to {max(rates):.0f})"
    waits = f"{mid['learner_idle']:.0%} ({min(idle):.0%} to {max(idle):.0%})"
    lengths = "  ".join(f"{mid[name]:.2f}" for name in ("mean", "p50", "p90", "p99"))
    shares = f"{mid['dropped']:7.1%}  {mid['stale_tokens']:12.1%}"
    return f"{speed:24}  {mid['trained_per_s']:8.0f}  {waits:18}  {shares}  {lengths}"


def main() -> None:
    """Simulate every combination, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.late_policy", description=__doc__)
    parser.add_argument("--late", nargs="+", default=["wait", "drop", "partial"])
    parser.add_argument("--staleness", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--step-ms", type=float, default=1.0, help="of a step of the engine")
    parser.add_argument("--token-us", type=float, default=12.5, help="of the learner, per sampled token")
    options = parser.parse_args()
    scripted_engine.STEP_SECONDS = 0.0  # it would sleep
    costs = Costs(options.step_ms / 1e3, options.token_us / 1e6)
    heads = f"{'updates/h':24}  tokens/s  {'learner idle':18}  dropped  stale tokens  mean  p50   p90   p99"
    print(f"staleness  late     {heads}")
    for staleness in options.staleness:
        for late in options.late:
            runs = [simulate(late, staleness, seed, options.updates, costs) for seed in options.seeds]
            print(f"{staleness:9}  {late:7}  {_row(runs)}", flush=True)


if __name__ == "__main__":
    main()
