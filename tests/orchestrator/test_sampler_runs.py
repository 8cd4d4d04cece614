"""Complete runs: the difficulty sampler, stop texts in the real engine, and runs of a number of epochs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from grpo_gsm8k.tracking import ledger
from tests.conftest import Cli, read_jsonl
from tests.orchestrator.test_runs import SMALL, SYNC, assert_equal_runs, metrics_of, steps_of

pytestmark = pytest.mark.slow
FEW = ("data.train_size=32", "data.val_size=8", "data.test_size=8", "policy_gradient.eval_limit=8")
DIFFICULTY = (
    *SMALL,
    *FEW,
    "policy_gradient.max_staleness=1",
    "data.sampler=difficulty",
    "policy_gradient.keep_last=all",
    "actor.engine=scripted",
)


def rows(run: Path) -> dict[int, tuple[object, ...]]:
    return dict(ledger.read(run / "ledger.jsonl").steps)


def test_the_difficulty_sampler_resumes_to_the_same_prompts(cli: Cli) -> None:
    """Nothing is ever solved by the scripted engine, so prompts are skipped from the second epoch on."""
    assert cli.run(*DIFFICULTY, "policy_gradient.updates=12").returncode == 0
    (whole,) = cli.runs()
    uses = ledger.read(whole / "ledger.jsonl").uses()
    visits = [(use.epoch, use.prompt_id) for use in uses]
    assert len(visits) == len(set(visits))  # once per epoch, drawn or skipped
    skipped = [use for use in uses if use.reason == "skipped"]
    assert len(skipped) > 20
    assert min(use.epoch for use in skipped) >= 1
    assert all((use.of is None) == (use.reason == "skipped") for use in uses)
    assert read_jsonl(whole / "metrics.jsonl")[-2]["train/epoch"] == pytest.approx(len(visits) / 24)

    before = rows(whole)
    again = cli.run(
        *DIFFICULTY, "policy_gradient.updates=12", f"policy_gradient.resume_from={whole}/checkpoints/step_6"
    )
    assert again.returncode == 0, again.stderr
    assert [e["step"] for e in read_jsonl(whole / "events.jsonl") if e["kind"] == "rollback"] == [6]
    assert rows(whole) == before

    assert cli.run(*DIFFICULTY, "policy_gradient.updates=6").returncode == 0
    shorter = cli.runs()[-1]
    longer = cli.run(*DIFFICULTY, "policy_gradient.updates=12", f"policy_gradient.resume_from={shorter}")
    assert longer.returncode == 0, longer.stderr
    assert rows(shorter) == before  # although the shorter run's last draws came later


def test_the_difficulty_sampler_resumes_bit_for_bit(cli: Cli, tmp_path: Path) -> None:
    settings = (*SYNC, *FEW, "data.sampler=difficulty", "policy_gradient.keep_last=all", "policy_gradient.updates=8")
    done = cli.run(*settings)
    assert done.returncode == 0, done.stderr
    (run,) = cli.runs()
    whole = tmp_path / "whole"
    shutil.copytree(run, whole)
    state = json.loads((run / "checkpoints" / "step_4" / "state.json").read_text())
    assert state["plan"]["solve_counts"]
    done = cli.run(*settings, f"policy_gradient.resume_from={run}/checkpoints/step_4")
    assert done.returncode == 0, done.stderr
    assert [e["step"] for e in read_jsonl(run / "events.jsonl") if e["kind"] == "rollback"] == [4]
    assert_equal_runs(run, whole, 8)
    assert rows(run) == rows(whole)


def test_stop_texts_cut_what_is_graded_and_not_what_is_learned(cli: Cli) -> None:
    """The answer comes after the stop text, so nothing is right; engine and learner agree on all tokens."""
    done = cli.run(*SYNC, *FEW, "policy_gradient.updates=2", 'policy_gradient.stop=["####"]')
    assert done.returncode == 0, done.stderr
    (run,) = cli.runs()
    steps = [record for record in metrics_of(run) if "step" in record]
    assert max(record["sync/logprob_gap_max"] for record in steps) < 1e-3
    rollouts = pq.read_table(run / "rollouts" / "step_1.parquet").to_pylist()
    ended = [row for row in rollouts if row["finish_reason"] == "stop" and len(row["tokens"]) == len(row["text"]) + 4]
    assert len(ended) > len(rollouts) / 2  # one token per character: those of the stop text are still there
    for row in [*rollouts, *pq.read_table(run / "validation" / "step_0.parquet").to_pylist()]:
        assert "####" not in row["text"]
        assert row["kind"] != "correct"


def test_epochs_end_with_their_last_prompt(cli: Cli) -> None:
    done = cli.run(*SYNC, *FEW, "policy_gradient.updates=null", "policy_gradient.epochs=1.5", "actor.engine=scripted")
    assert done.returncode == 0, done.stderr
    (run,) = cli.runs()
    assert steps_of(run) == [1, 2, 3, 4, 5]  # 36 prompts, 8 per update
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["total_steps"]) == ("done", 5)
    assert [r["val/version"] for r in metrics_of(run) if "val/version" in r] == [0, 3, 5]
    assert [r["train/epoch"] for r in metrics_of(run) if "step" in r][-1] == pytest.approx(40 / 24)
    stats = json.loads((run / "training_stats.json").read_text())
    assert [stats[name]["update"] for name in ("first", "middle", "last")] == [1, 3, 5]
    assert stats["updates"] == 5
    assert stats["last"]["value_loss"] is None
