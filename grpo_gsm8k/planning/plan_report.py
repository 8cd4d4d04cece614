"""`doctor.plan`: predictions for this learner with more and more engines, and what fits which GPUs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.data.prepare import ensure, load_split
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.planning.estimated_rates import on_cpu, on_gpus, scripted_pipeline
from grpo_gsm8k.planning.memory_plan import memory_rows
from grpo_gsm8k.planning.plan import make_plan
from grpo_gsm8k.planning.plan_tables import Planned, plan_lines
from grpo_gsm8k.planning.recorded_rates import fitted_pipeline, read_run
from grpo_gsm8k.preflight.cpu_times import measured_times
from grpo_gsm8k.preflight.diagnosis import places_of
from grpo_gsm8k.preflight.machine import probe
from grpo_gsm8k.preflight.parameters import folder_of_config, from_folder
from grpo_gsm8k.preflight.prompt_lengths import mean_prompt
from grpo_gsm8k.preflight.threads import with_threads
from grpo_gsm8k.preflight.workload import TYPICAL_PROMPT
from grpo_gsm8k.start_model import pin_model
from grpo_gsm8k.tracking import run_folder
from grpo_gsm8k.tracking.saved_config import read_config

if TYPE_CHECKING:
    from grpo_gsm8k.config import Config
    from grpo_gsm8k.planning.rates import Pipeline
    from grpo_gsm8k.preflight.parameters import ModelShape


def show_plan(config: Config) -> int:
    """Print the plan as tables, or as JSON; returns 0. Raises UserError if no rates are known."""
    config = config.model_copy(update={"command": "policy_gradient"})
    planned = _from_run(config, config.doctor.plan_from) if config.doctor.plan_from else _from_estimates(config)
    print(json.dumps(as_json(planned), indent=2) if config.doctor.json_ else "\n".join(plan_lines(planned)))
    return 0


def _from_estimates(config: Config) -> Planned:
    config = pin_model(config)
    shape = from_folder(folder_of_config(config))
    config, pipeline = estimated_pipeline(config, shape, TYPICAL_PROMPT)
    memory = [] if config.learner.device == "cpu" else memory_rows(shape, config)
    return Planned(config, pipeline, make_plan(config, pipeline), memory)


def _from_run(config: Config, spec: str) -> Planned:
    """Plan with a run's own configuration; its number of engines and its staleness are those of `config`'s run."""
    run, _ = run_folder.find(config.artifacts, spec)
    saved = read_config(run).model_copy(update={"artifacts": config.artifacts})
    folder = folder_of_config(saved)
    problems = []
    if (config.artifacts / saved.data.folder).exists():
        problems = load_split(ensure(saved.data, config.artifacts, saved.prompt.locale), "train")
    prompt = mean_prompt(saved.prompt, folder, problems)
    recorded = read_run(run, saved, prompt)
    _, guess = estimated_pipeline(saved, from_folder(folder), prompt)
    pipeline = fitted_pipeline(recorded, guess)
    return Planned(saved, pipeline, make_plan(saved, pipeline), [])


def estimated_pipeline(config: Config, shape: ModelShape, prompt: float) -> tuple[Config, Pipeline]:
    """Return the estimated rates, and the configuration with its number of threads. Raises UserError if unknown."""
    if config.actor.engine == "scripted":
        return config, scripted_pipeline(shape, config)
    machine = probe(config)
    if config.actor.device == config.learner.device == "cpu" and config.doctor.gpu is None:
        times = measured_times(config, machine, shape, prompt)
        if times is None:
            raise UserError("this CPU's rates could not be measured: set doctor.gpu=NAME or doctor.plan_from=RUN")
        config, _ = with_threads(config, times, machine.threads)
        return config, on_cpu(times)
    places = places_of(config, machine)
    if not places.known or "cpu" in (places.actor.name, places.learner.name):
        raise UserError("the rates of these devices are unknown: set doctor.gpu=NAME or doctor.plan_from=RUN")
    source = f"the preflight's estimates for {places.actor.name} and {places.learner.name}, none of them measured"
    return config, on_gpus(shape, config, places.actor, places.learner, source)


def as_json(planned: Planned) -> dict[str, Any]:
    """Return everything as plain values; memory in bytes, None where a rank does not fit a card."""
    plan = planned.plan
    rows = [
        {"actors": row.actors, "updates_per_hour": row.state.updates_per_hour, **asdict(row.state)}
        | {"over_network": [state.updates_per_hour for state in row.over_network]}
        for row in plan.rows
    ]
    return {
        "source": planned.pipeline.source,
        "rows": rows,
        "learner_bound": plan.learner_bound,
        "enough": plan.enough,
        "memory": [asdict(row) for row in planned.memory],
    }
