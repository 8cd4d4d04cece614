"""Rates and lengths of a run that was made, from its own `trace.json`, rollouts and validations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.planning.rates import LearnerRates, Lengths, Pipeline
from grpo_gsm8k.planning.simulate import simulate
from grpo_gsm8k.planning.steady_state import LEARNER, SteadyState, recorded_spans, steady_state, within

if TYPE_CHECKING:
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.planning.steady_state import TimedSpan
    from grpo_gsm8k.tracking.run_folder import RunFolder

LEARNING = ("grading", "prepare", "update")  # spans of the learner that grow with the tokens of an update
FITS = 3  # the engine's speed is fitted in so many rounds


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run's name, configuration and spans, and the lengths of its completions."""

    name: str
    config: Config
    spans: list[TimedSpan]
    lengths: Lengths

    @property
    def measured(self) -> SteadyState:
        """The run's speed and idle shares."""
        return steady_state(self.spans, self.config.actor.replicas, self.config.policy_gradient.max_staleness)


def read_run(run: RunFolder, config: Config, prompt: float) -> RecordedRun:
    """Read the files of a run that has `config`; `prompt` is the mean length of its prompts in tokens.

    Raises UserError for a run of another command, and for files that are missing or damaged.
    """
    if config.command != "policy_gradient":
        raise UserError(f"doctor.plan_from={run.path.name} has command={config.command}: name a run of policy_gradient")
    size = config.policy_gradient.group_size
    rollouts = [length for path in _parquet_files(run.rollouts) for length in _token_counts(path)]
    groups = tuple(tuple(rollouts[start : start + size]) for start in range(0, len(rollouts), size))
    validation = tuple(length for path in _parquet_files(run.validation) for length in _token_counts(path))
    if not groups:
        raise UserError(f"{run.rollouts} has no completions: plan from a run with policy_gradient.keep_rollouts=all")
    return RecordedRun(
        run.path.name, config, recorded_spans(run), Lengths(groups, validation[: _items(run)], round(prompt))
    )


def fitted_pipeline(run: RecordedRun, guess: Pipeline) -> Pipeline:
    """Return the rates of a recorded run.

    The learner's are the means of its spans. The engine's are those of `guess` times one factor, by which the
    simulation of the same run has its engines busy for as long as they were. Exchange of gradients and size of the
    weights are those of `guess`.
    """
    state = run.measured
    message_s = _message_s(run)
    engine = replace(guess.engine, load_s=_mean_s(run, "load"), verify_s=_verify_s(run, guess.engine.verify_s))
    network = replace(guess.network, message_s=message_s)
    pipeline = Pipeline(engine, _learner(run, guess.learner), network, run.lengths, f"those of the run {run.name}")
    busy_s = (1 - state.engines_idle) * (state.end_s - state.start_s) / state.updates
    for _ in range(FITS):
        simulated = simulate(run.config, pipeline, state.updates)
        again_s = (1 - simulated.engines_idle) * (simulated.end_s - simulated.start_s) / simulated.updates
        working_s = max(busy_s - engine.load_s, 0.1 * busy_s)
        pipeline = replace(pipeline, engine=pipeline.engine.slower(working_s / max(again_s - engine.load_s, 1e-9)))
    return pipeline


def _learner(run: RecordedRun, guess: LearnerRates) -> LearnerRates:
    ranks, pg = len(run.config.learner.rank_devices), run.config.policy_gradient
    tokens = sum(map(sum, run.lengths.groups)) / len(run.lengths.groups) + run.lengths.prompt
    seconds = sum(_mean_s(run, name) for name in LEARNING)
    tokens_per_rank = pg.epochs_per_batch * pg.prompts_per_update * tokens / ranks
    saved = [span.seconds for span in run.spans if span.row == LEARNER and span.name == "checkpoint"]
    return LearnerRates(
        token_s=seconds / tokens_per_rank,
        update_s=0.0,
        publish_s=_mean_s(run, "publish"),
        records_s=_mean_s(run, "records"),
        checkpoint_s=sum(saved) / len(saved) if saved else 0.0,
        ranks=ranks,
        exchange_s=guess.exchange_s if ranks == 1 else 0.0,  # else it is in the spans
    )


def _mean_s(run: RecordedRun, name: str) -> float:
    """Return the mean seconds of a span per update, or per load of an engine."""
    state = run.measured
    named = [span for span in run.spans if span.name == name]
    engines = 1 if any(span.row == LEARNER for span in named) else run.config.actor.replicas
    return within(named, state.start_s, state.end_s) / state.updates / engines


def _message_s(run: RecordedRun) -> float:
    """Return the mean time from the end of an engine's last work for an update to the end of the learner's wait.

    It is only seen without overlap; else 0, because then the rates of a run hide it.
    """
    if run.config.policy_gradient.max_staleness:
        return 0.0
    ends = [span.end_s for span in run.spans if span.name == "generate"]
    waits = [span.end_s for span in _in_window(run, "wait for rollouts")]
    delays = [min(wait - end for end in ends if end <= wait) for wait in waits]
    return sum(delays) / len(delays)


def _verify_s(run: RecordedRun, guess: float) -> float:
    """Return the mean time from the end of publishing to the load on an engine, less that of the message.

    Without overlap nothing else is in between.
    """
    published = {span.version: span.end_s for span in run.spans if span.row == LEARNER and span.name == "publish"}
    loads = _in_window(run, "load")
    if not loads or run.config.policy_gradient.max_staleness:
        return guess
    return max(0.0, sum(span.start_s - published[span.version] for span in loads) / len(loads) - _message_s(run))


def _in_window(run: RecordedRun, name: str) -> list[TimedSpan]:
    """Return the spans of a name that began in the measured updates."""
    state = run.measured
    return [span for span in run.spans if span.name == name and state.start_s <= span.start_s < state.end_s]


def _parquet_files(folder: Path) -> list[Path]:
    found = ((path.stem.removeprefix("step_"), path) for path in folder.glob("step_*.parquet"))
    return [path for _, path in sorted((int(step), path) for step, path in found if step.isdecimal())]


def _token_counts(path: Path) -> list[int]:
    """Return the number of tokens of each row. Raises UserError if the file cannot be read."""
    try:
        counts: list[int] = pc.list_value_length(pq.read_table(path, columns=["tokens"])["tokens"]).to_pylist()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): plan from another run") from None
    return counts


def _items(run: RunFolder) -> int:
    """Return the number of validation items: the rows of one file."""
    files = _parquet_files(run.validation)
    return len(_token_counts(files[0])) if files else 0
