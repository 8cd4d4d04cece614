"""Complete runs of supervised fine-tuning: resume, killed actor, early stop, policy gradient from its result."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from grpo_gsm8k.tracking import ledger
from tests.conftest import Cli, read_jsonl
from tests.orchestrator.test_runs import (
    assert_equal_runs,
    assert_validations_pinned,
    events_of,
    finish,
    pid_of,
    steps_of,
    wait_for,
)

pytestmark = pytest.mark.slow
DATA = ("preset=cpu_demo", "data.train_size=160", "data.val_size=32", "data.test_size=4")
SFT = (
    "command=sft",
    *DATA,
    "wandb.mode=off",
    "sft.epochs=4",
    "sft.min_tokens_per_update=600",
    "sft.lr=1e-3",
    "sft.warmup_updates=3",
    "sft.eval_every=8",
    "sft.save_every=4",
    "learner.deterministic=true",
)
UPDATES = 22
VALIDATED = [0, 8, 16, 22]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    cli = Cli(tmp_path_factory.mktemp("sft") / "artifacts")
    done = cli.run("command=preprocess", *DATA)
    assert done.returncode == 0, done.stderr
    return cli


@pytest.fixture(scope="module")
def whole_run(prepared: Cli) -> Path:
    done = prepared.run(*SFT)
    assert done.returncode == 0, done.stderr
    return prepared.runs()[-1]


def start(prepared: Cli) -> tuple[subprocess.Popen[str], Path]:
    """Start a run; returns its process and its new folder."""
    before = prepared.runs()
    process = prepared.start(*SFT)
    wait_for(process, lambda: len(prepared.runs()) > len(before) and (prepared.runs()[-1] / "events.jsonl").exists())
    return process, prepared.runs()[-1]


def test_every_example_is_used_once_per_epoch(whole_run: Path) -> None:
    assert steps_of(whole_run) == list(range(1, UPDATES + 1))
    uses = [(u.epoch, u.prompt_id) for u in ledger.read(whole_run / "ledger.jsonl").uses()]
    assert len(uses) == len(set(uses)) == 4 * 128
    assert_validations_pinned(whole_run)
    records = read_jsonl(whole_run / "metrics.jsonl")
    assert sorted(r["val/version"] for r in records if "val/version" in r) == VALIDATED  # type: ignore[type-var]
    steps = [r for r in records if "step" in r]
    assert float(str(steps[-1]["train/loss"])) < float(str(steps[0]["train/loss"]))


def test_interrupted_and_resumed_is_bitwise_the_same(prepared: Cli, whole_run: Path) -> None:
    process, run = start(prepared)
    wait_for(process, lambda: bool(steps_of(run)))
    process.send_signal(signal.SIGTERM)
    finish(process, 143)
    assert 0 < len(steps_of(run)) < UPDATES
    done = prepared.run(*SFT, f"sft.resume_from={run}")
    assert done.returncode == 0, done.stderr
    assert_equal_runs(whole_run, run, UPDATES)


def test_actor_killed_during_a_validation(prepared: Cli, whole_run: Path) -> None:
    """The validation is repeated once, and recorded under its own version."""
    process, run = start(prepared)
    metrics = run / "metrics.jsonl"
    # Learning does not wait for the engine's start: when the first validation is done, the second is running.
    wait_for(process, lambda: len(steps_of(run)) >= 8 and '"val/version"' in metrics.read_text())
    assert not (run / "validation/step_8.parquet").exists()
    os.kill(pid_of(run, "actor-0"), signal.SIGKILL)
    finish(process)
    assert len(events_of(run, "actor_restarted")) == 1
    versions = [int(str(r["val/version"])) for r in read_jsonl(run / "metrics.jsonl") if "val/version" in r]
    assert sorted(versions) == VALIDATED
    assert_validations_pinned(run)
    for version in versions:
        again, before = (pq.read_table(r / f"validation/step_{version}.parquet") for r in (run, whole_run))
        assert again["text"].to_pylist() == before["text"].to_pylist()


def test_stops_when_validation_does_not_improve(prepared: Cli) -> None:
    done = prepared.run(*SFT, "sft.lr=0", "sft.patience=1", "sft.eval_every=1")
    assert done.returncode == 0, done.stderr
    assert "stopped early" in done.stdout
    run = prepared.runs()[-1]
    assert 1 <= len(steps_of(run)) < UPDATES
    assert (run / f"checkpoints/step_{max(steps_of(run))}").is_dir()


def test_policy_gradient_starts_from_the_newest_sft_run(prepared: Cli, whole_run: Path) -> None:
    done = prepared.run(
        "command=policy_gradient",
        *DATA,
        "wandb.mode=off",
        "policy_gradient.model_id=run:latest:sft",
        "policy_gradient.updates=1",
        "policy_gradient.episodes_per_update=16",
    )
    assert done.returncode == 0, done.stderr
    run = prepared.runs()[-1]
    config = yaml.safe_load((run / "config.yaml").read_text())
    started = Path(config["model"]["path"])
    assert "_sft" in started.parts[-4]
    assert config["policy_gradient"]["model_id"] is None
    texts = pq.read_table(run / "validation/step_0.parquet")["text"].to_pylist()
    before = started.parent.parent.parent / "validation" / f"{started.parent.name}.parquet"
    if before.exists():
        assert texts == pq.read_table(before)["text"].to_pylist()  # the same weights


def test_an_adapter_is_merged_for_evaluation(prepared: Cli) -> None:
    done = prepared.run(*SFT, "learner=lora", "sft.epochs=1", "name=adapter")
    assert done.returncode == 0, done.stderr
    run = prepared.runs()[-1]
    assert (run / "checkpoints/step_6/model/adapter_model.safetensors").stat().st_size < 1e6
    done = prepared.run("command=eval", *DATA, f"eval.model_path=run:{run.name}", "eval.limit=2")
    assert done.returncode == 0, done.stderr
    (merged,) = (run / "merged").iterdir()
    assert (merged / "model.safetensors").is_file()


def test_refusals(prepared: Cli) -> None:
    other = prepared.run(*SFT, "prompt.text='{question} ='")
    assert (other.returncode, "prompt.text" in other.stderr) == (2, True), other.stderr
    missing = prepared.run(*SFT, "preprocess.folder=nothing")
    assert missing.returncode == 2
    assert missing.stderr.strip().endswith("run command=preprocess with the same settings first")


def test_the_engine_was_compared_with_the_learner(whole_run: Path) -> None:
    """Fine-tuning does not wait for the answers of the parity probe, but it does not end without them."""
    assert "parity probe of the engine" in (whole_run / "logs" / "learner.log").read_text()
