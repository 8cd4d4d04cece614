"""Runs whose number of engines changes while they go on: command=scale in a process of its own."""

from __future__ import annotations

import json
import signal

import pytest

from tests.conftest import Cli
from tests.orchestrator.test_runs import SCRIPTED, assert_nothing_lost, events_of, finish, run_of, steps_of, wait_for

pytestmark = pytest.mark.slow


def test_engines_are_added_and_taken_away_while_a_run_goes_on(cli: Cli) -> None:
    process = cli.start(*SCRIPTED, "policy_gradient.updates=2000", "policy_gradient.eval_every=500")
    run = run_of(cli, process)
    wait_for(process, lambda: 1 in steps_of(run))
    grown = cli.run("command=scale", "run=latest", "actor.replicas=3")
    assert grown.returncode == 0, grown.stderr
    assert "actor.replicas=3 from now on" in grown.stdout
    shrunk = cli.run("command=scale", f"run={run}", "actor.replicas=2")
    assert shrunk.returncode == 0, shrunk.stderr
    (run / "scale.json").write_text(json.dumps({"id": "x", "replicas": "two"}))
    wait_for(process, lambda: not (run / "scale.json").exists())
    at = max(steps_of(run))
    wait_for(process, lambda: max(steps_of(run)) > at + 1)
    process.send_signal(signal.SIGTERM)
    output = finish(process, 128 + signal.SIGTERM)
    assert f"{run / 'scale.json'} is ignored: replicas" in output
    assert [(e["before"], e["now"]) for e in events_of(run, "actors_scaled")] == [(1, 3), (3, 2)]
    started = [e["worker"] for e in events_of(run, "worker_started")]
    assert started == ["learner", "actor-0", "actor-1", "actor-2"]
    assert events_of(run, "actor_restarted") == []
    assert_nothing_lost(run, max(steps_of(run)))
    late = cli.run("command=scale", f"run={run}", "actor.replicas=2")
    assert late.returncode == 2
    assert late.stderr.splitlines()[-1] == f"error: {run} is not running: resume it with actor.replicas=N instead"


def test_a_scale_without_a_number_is_refused(cli: Cli) -> None:
    result = cli.run("command=scale", "run=latest")
    assert (result.returncode, result.stderr) == (
        2,
        "error: command=scale needs actor.replicas=N, the number of engines that the run is to have\n",
    )
