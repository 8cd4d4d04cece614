"""A small run whose times can be computed by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cli import load_config
from grpo_gsm8k.config import Config
from grpo_gsm8k.planning.rates import EngineRates, LearnerRates, Lengths, Network, Pipeline

GROUPS, SIZE, LENGTH, PROMPT = 8, 4, 40, 50
COMPLETIONS = GROUPS * SIZE
TOKENS = GROUPS * (PROMPT + SIZE * LENGTH)  # of an update
STEP_S, SEQUENCE_S = 0.01, 0.001
PUBLISH_S, RECORDS_S, TOKEN_S = 0.3, 0.05, 1e-4


def config_of(actors: int = 1, max_staleness: int = 0, *words: str) -> Config:
    """A run without validations."""
    sizes = [f"policy_gradient.episodes_per_update={COMPLETIONS}", f"policy_gradient.group_size={SIZE}"]
    pace = [f"policy_gradient.max_staleness={max_staleness}", f"actor.replicas={actors}"]
    rare = ["policy_gradient.eval_every=1000", "policy_gradient.save_every=1000"]
    return load_config(["command=policy_gradient", "preset=cpu_demo", *sizes, *pace, *rare, *words])


def pipeline_of(length: int = LENGTH, **changes: Any) -> Pipeline:
    """Constant lengths; `changes` are of fields of the engine, the learner or the network."""
    engine = EngineRates(STEP_S, SEQUENCE_S, 0.0, COMPLETIONS, 0.0, 0.0)
    learner = LearnerRates(TOKEN_S, 0.0, PUBLISH_S, RECORDS_S)
    network = Network(0.0, 1e9, None, 1)
    lengths = Lengths(((length,) * SIZE,), (length,) * 3, PROMPT)
    parts = {"engine": engine, "learner": learner, "network": network}
    for name, part in parts.items():
        fields = {key: value for key, value in changes.items() if hasattr(part, key)}
        parts[name] = replace(part, **fields)
    return Pipeline(lengths=lengths, source="by hand", **parts)  # type: ignore[arg-type]
