"""Runs whose learner has two ranks: killed and stopped ranks, the real engine, a resume with one rank."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.conftest import Cli, patience
from tests.orchestrator.test_runs import (
    SCRIPTED,
    SMALL,
    UPDATES,
    assert_nothing_lost,
    events_of,
    finish,
    metrics_of,
    pid_of,
    run_of,
    steps_of,
    wait_for,
)
from tests.orchestrator.test_sft_runs import DATA, SFT

pytestmark = pytest.mark.slow
RANKS = ("learner.ranks=2",)


@pytest.mark.parametrize(
    ("number", "reason", "shard"),
    [
        (signal.SIGKILL, "ended with exit code -9", "none"),
        (signal.SIGSTOP, "is late by", "optimizer"),
        (signal.SIGKILL, "ended with exit code -9", "full"),
    ],
)
def test_a_rank_that_fails_is_a_learner_that_fails(cli: Cli, number: signal.Signals, reason: str, shard: str) -> None:
    """The learner is replaced, with all of its ranks, and continues from its checkpoint."""
    limit = f"learner.rank_timeout_s={patience(5)}"
    process = cli.start(*SCRIPTED, *RANKS, limit, f"learner.shard={shard}")
    run = run_of(cli, process)
    wait_for(process, lambda: 2 in steps_of(run))
    (rank,) = psutil.Process(pid_of(run, "learner")).children()
    rank.send_signal(number)
    finish(process)
    (restarted,) = events_of(run, "learner_restarted")
    named = str(restarted["reason"]).removeprefix("RankError: rank 1 of the learner ")
    assert named.startswith(reason), restarted
    assert events_of(run, "actor_restarted") == []
    assert not rank.is_running()
    assert_nothing_lost(run)


@pytest.mark.more
def test_ranks_end_with_a_killed_learner(cli: Cli) -> None:
    process = cli.start(*SCRIPTED, *RANKS)
    run = run_of(cli, process)
    wait_for(process, lambda: 2 in steps_of(run))
    learner = psutil.Process(pid_of(run, "learner"))
    (rank,) = learner.children()
    learner.kill()
    finish(process)
    assert not rank.is_running()
    assert len(events_of(run, "learner_restarted")) == 1
    assert_nothing_lost(run)


@pytest.mark.parametrize("shard", [pytest.param("none", marks=pytest.mark.more), "full"])
def test_two_ranks_with_the_engine(cli: Cli, shard: str) -> None:
    """The thinnest whole way, then two more updates with one rank."""
    short = (*SMALL, "policy_gradient.eval_every=2", "policy_gradient.updates=3")
    done = cli.run(*short, *RANKS, f"learner.shard={shard}")
    assert done.returncode == 0, done.stderr
    (run,) = cli.runs()
    assert steps_of(run) == [1, 2, 3]
    gaps = [r["sync/logprob_gap_max"] for r in metrics_of(run) if "sync/logprob_gap_max" in r]  # if a token is fresh
    assert gaps
    assert max(gaps) < 1e-3
    again = (
        *("policy_gradient.resume_from=latest", f"policy_gradient.updates={UPDATES}"),
        *("learner.ranks=1", "learner.shard=none"),
    )
    done = cli.run("command=policy_gradient", *again)
    assert done.returncode == 0, done.stderr
    assert_nothing_lost(run)
    (changed,) = [event for event in events_of(run, "config_changed") if event["key"] == "learner.ranks"]
    assert (changed["old"], changed["new"]) == (2, 1)


def test_fine_tuning_with_two_ranks(cli: Cli) -> None:
    """Losses of one rank, as far as rounding lets them: weights drift apart a little with each update."""
    assert cli.run("command=preprocess", *DATA).returncode == 0
    found = []
    for count in (1, 2):
        done = cli.run(*SFT, "actor.engine=scripted", "sft.epochs=1", f"learner.ranks={count}")
        assert done.returncode == 0, done.stderr
        found.append([r["train/loss"] for r in metrics_of(cli.runs()[-1]) if "step" in r])
    assert len(found[0]) > 3
    assert found[1] == pytest.approx(found[0], rel=1e-4)
