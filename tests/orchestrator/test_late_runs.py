"""Complete runs with policy_gradient.late=drop and partial: killed processes, resumed runs, and the real engine."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from grpo_gsm8k.tracking import ledger
from tests.conftest import Cli, read_jsonl
from tests.orchestrator.test_runs import (
    SMALL,
    assert_validations_pinned,
    events_of,
    finish,
    metrics_of,
    pid_of,
    run_of,
    steps_of,
    wait_for,
)

pytestmark = pytest.mark.slow
UPDATES = 12
PROMPTS = 8
LATE = (
    *SMALL,
    f"policy_gradient.updates={UPDATES}",
    "policy_gradient.save_every=1",
    "policy_gradient.max_new_tokens=96",
    "actor.max_model_len=256",
    "policy_gradient.keep_last=all",
    "policy_gradient.eval_every=5",
)
TAILED = (*LATE, "actor.engine=scripted", "actor.scripted_lengths=lognormal", "actor.max_num_seqs=2048")


def visits(run: Path) -> list[tuple[int, str]]:
    return [(use.epoch, use.prompt_id) for use in ledger.read(run / "ledger.jsonl").uses()]


def assert_exact(run: Path, late: str, updates: int = UPDATES) -> None:
    """Each prompt that was drawn is in the ledger once, consumed or dropped, or waits in the last checkpoint's plan."""
    assert steps_of(run) == list(range(1, updates + 1))
    account = ledger.read(run / "ledger.jsonl")
    assert sorted(account.steps) == list(range(1, updates + 1))
    plan = json.loads((run / f"checkpoints/step_{updates}/state.json").read_text())["plan"]
    waiting = [position for positions in plan["positions"].values() for position in positions]
    assert len(visits(run)) == len(set(visits(run)))
    assert len(visits(run)) + len(waiting) == plan["cursor"]
    dropped = {r["step"]: r["rollout/dropped_groups"] for r in metrics_of(run) if "step" in r}
    for step, uses in account.steps.items():
        rows = pq.read_table(run / "rollouts" / f"step_{step}.parquet").to_pylist()
        assert {r["prompt_id"] for r in rows} == {use.prompt_id for use in uses if not use.reason}
        assert len(rows) == 8 * PROMPTS
        assert sum(use.reason == "too_stale" for use in uses) == dropped[step]
        for row in rows:
            assert (min(row["versions"]), max(row["versions"])) == (row["version_min"], row["version_max"])
            assert len(row["versions"]) == len(row["tokens"])
            assert row["versions"] == sorted(row["versions"])
            if late == "drop":
                assert row["version_min"] >= step - 1 - 1  # update `step` trains version step - 1, max_staleness is 1


@pytest.mark.parametrize("late", ["drop", "partial"])
def test_killed_workers_lose_nothing(cli: Cli, late: str) -> None:
    """An engine of two, then the learner, by SIGKILL."""
    process = cli.start(*TAILED, f"policy_gradient.late={late}", "actor.replicas=2")
    run = run_of(cli, process)
    wait_for(process, lambda: 2 in steps_of(run))
    os.kill(pid_of(run, "actor-1"), signal.SIGKILL)
    wait_for(process, lambda: (run / "checkpoints/step_4").is_dir())
    os.kill(pid_of(run, "learner"), signal.SIGKILL)
    finish(process)
    assert len(events_of(run, "actor_restarted")) == len(events_of(run, "learner_restarted")) == 1
    assert_exact(run, late)


@pytest.mark.parametrize("late", ["drop", "partial"])
def test_a_killed_run_resumes_with_an_exact_account(cli: Cli, late: str) -> None:
    process = cli.start(*TAILED, f"policy_gradient.late={late}", "policy_gradient.active_sampling=2")
    run = run_of(cli, process)
    wait_for(process, lambda: (run / "checkpoints/step_3").is_dir())
    process.kill()
    process.wait()
    done = cli.run(*TAILED, "policy_gradient.resume_from=latest")
    assert done.returncode == 0, done.stderr
    assert_exact(run, late)


@pytest.mark.parametrize("engine", ["scripted", "adapter"])
def test_dropped_groups_are_counted_and_not_requested_again(cli: Cli, engine: str) -> None:
    """One engine of two stands still, so its groups get too old, while the other's make up the updates."""
    words = TAILED if engine == "scripted" else (*LATE, "learner=lora")
    process = cli.start(*words, "policy_gradient.late=drop", "actor.replicas=2", "actor.progress_timeout_s=600")
    run = run_of(cli, process)
    wait_for(process, lambda: 2 in steps_of(run))
    stopped = pid_of(run, "actor-1")
    os.kill(stopped, signal.SIGSTOP)

    wait_for(process, lambda: any(r["rollout/dropped_groups"] for r in metrics_of(run) if "step" in r))
    os.kill(stopped, signal.SIGCONT)
    finish(process)
    assert_exact(run, "drop")
    dropped = [use for use in ledger.read(run / "ledger.jsonl").uses() if use.reason == "too_stale"]
    assert all(use.of is None for use in dropped)
    assert len(visits(run)) == UPDATES * PROMPTS + len(dropped)  # nothing is in flight at the end
    assert events_of(run, "actor_restarted") == []


@pytest.mark.parametrize("late", ["drop", "partial"])
def test_the_real_engine_and_the_learner_agree_on_every_recent_token(cli: Cli, late: str) -> None:
    """Cancelled requests leave vLLM, and completions of several versions carry the right log-probabilities.

    Of these, those sampled by the version that is trained are compared with the learner's.
    """
    words = ("policy_gradient.updates=8", "policy_gradient.save_every=8", "learner.lr=1e-3")
    done = cli.run(*LATE, *words, f"policy_gradient.late={late}")
    assert done.returncode == 0, done.stderr
    (run,) = cli.runs()
    assert_exact(run, late, 8)
    assert_validations_pinned(run)
    steps = [r for r in read_jsonl(run / "metrics.jsonl") if "step" in r]
    gaps = [r["sync/logprob_gap_max"] for r in steps if r.get("sync/logprob_gap_max") is not None]
    assert gaps
    assert max(gaps) < 1e-3
    if late == "partial":
        for step in range(1, 9):
            versions = pq.read_table(run / f"rollouts/step_{step}.parquet")["versions"].to_pylist()
            tokens = np.concatenate(versions)
            stale = next(r for r in steps if r["step"] == step)["rollout/stale_tokens_frac"]
            assert stale == pytest.approx(np.mean(tokens < step - 2))
