"""Learning under fire, in short: a synchronous run with faults inside its workers is bitwise the undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.soak.checks import lost_in, weights_of
from tests.soak.fire import run_under_fire

UPDATES = 6
SYNCHRONOUS = (
    "command=policy_gradient",
    "preset=cpu_demo",
    "wandb.mode=off",
    f"policy_gradient.updates={UPDATES}",
    "policy_gradient.episodes_per_update=64",
    "policy_gradient.eval_every=3",
    "policy_gradient.eval_limit=32",
    "policy_gradient.save_every=1",
    "policy_gradient.max_staleness=0",
    "learner.deterministic=true",
)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["scripted", "vllm"])
def test_a_synchronous_run_under_fire_is_bitwise_the_undisturbed_one(tmp_path: Path, engine: str) -> None:
    words = (*SYNCHRONOUS, f"actor.engine={engine}")
    whole = Cli(tmp_path / "whole")
    done = whole.run(*words)
    assert done.returncode == 0, done.stderr
    fired = run_under_fire(Cli(tmp_path / "fired"), words, seed=21, rate=0.06)
    assert fired.code == 0, fired.last_words
    assert fired.unproven == []
    assert "kill" in fired.kinds
    assert {fault.process for fault in fired.faults} == {"learner", "actor-0"}, fired.faults  # both, with this seed
    assert lost_in(fired.run, UPDATES) == []
    found, expected = weights_of(fired.run, UPDATES), weights_of(whole.runs()[-1], UPDATES)
    assert {"model/model.safetensors", "optimizer.safetensors", "rng.safetensors"} <= set(expected)
    assert found == expected
