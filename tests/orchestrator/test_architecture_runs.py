"""Training with the real engine: architectures beyond Llama's, and a learner that computes something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Cli, read_jsonl
from tests.learner import model_zoo

pytestmark = pytest.mark.slow
SMALL = (
    "command=policy_gradient",
    "preset=cpu_demo",
    "wandb.mode=off",
    "policy_gradient.updates=2",
    "policy_gradient.episodes_per_update=16",
    "policy_gradient.eval_every=2",
    "policy_gradient.eval_limit=4",
    "policy_gradient.max_new_tokens=24",
    "policy_gradient.entropy_coef=0.01",  # random weights earn no reward: something to learn all the same
    "actor.max_model_len=128",
    "actor.kv_cache_mb=32",
    "learner.lr=1e-3",
    "data.train_size=32",
    "data.val_size=8",
    "data.test_size=8",
)


@pytest.mark.parametrize("name", ["Gemma 3", "Gemma 2", "Mistral"])
def test_engine_and_learner_agree_beyond_the_window(cli: Cli, name: str, tmp_path: Path) -> None:
    folder = model_zoo.make(name, tmp_path / "model")
    done = cli.run(*SMALL, f"model.path={folder}")
    assert done.returncode == 0, done.stderr
    run = cli.runs()[-1]
    assert "parity probe of the engine" in (run / "logs" / "learner.log").read_text()
    steps = [record for record in read_jsonl(run / "metrics.jsonl") if "step" in record]
    gaps = [float(str(record["sync/logprob_gap_max"])) for record in steps if "sync/logprob_gap_max" in record]
    assert gaps
    assert max(gaps) < 1e-3


def test_an_unsupported_architecture_costs_no_engine_start(cli: Cli, tmp_path: Path) -> None:
    folder = model_zoo.make("Llama", tmp_path / "model")
    other = model_zoo.changed(folder, tmp_path / "other", model_type="lfm2")
    done = cli.run(*SMALL, f"model.path={other}")
    assert done.returncode == 2
    assert "lfm2 cannot be trained, its recurrent or convolutional layers" in done.stderr.splitlines()[-1]
    assert not cli.runs()
