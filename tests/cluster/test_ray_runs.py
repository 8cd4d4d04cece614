"""Runs on a Ray cluster of two nodes on this machine, and its faults: workers, hosts, nodes and the driver killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from cli import load_config
from grpo_gsm8k.config import Config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.runtime.actor_process import engine_spec
from tests.conftest import REPO, Cli, patience, read_jsonl
from tests.orchestrator.test_runs import SCRIPTED, SMALL, assert_nothing_lost, events_of, finish, run_of, steps_of

if TYPE_CHECKING:
    from grpo_gsm8k.cluster.ray_placement import RayPlacement

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow
RAY = ("cluster=ray", "actor.replicas=2")
LONG = (*SCRIPTED, *RAY, "policy_gradient.updates=100000", "policy_gradient.eval_every=100000")
JOINED_SECONDS = 120
STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _no_run_outlives_its_test() -> Iterator[None]:
    STARTED.clear()
    yield
    for process in STARTED:
        process.kill()
        process.communicate()


class Nodes:
    """A head node, which the driver uses, and further ones that come and go."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.others: list[Any] = []

    def add(self) -> None:
        self.others.append(self.cluster.add_node(num_cpus=1))

    def remove(self) -> None:
        """End a node at once, as when its machine is gone."""
        self.cluster.remove_node(self.others.pop(), allow_graceful=False)

    def ensure(self) -> None:
        """Have two nodes, also after a test that failed."""
        if not self.others:
            self.add()

    @property
    def address(self) -> str:
        return f"cluster.address={self.cluster.address}"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    found = Nodes()
    yield found
    found.cluster.shutdown()


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for `condition`; fails when the run ends before it holds, or after a long time."""
    until = time.monotonic() + patience(seconds)
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "the condition did not come true"
        time.sleep(0.05)


def connected(run: Path) -> list[dict[str, Any]]:
    return events_of(run, "worker_connected")


def started(cli: Cli, nodes: Nodes, *more: str) -> tuple[subprocess.Popen[str], Path]:
    """A run with one actor on each of two nodes that has done an update."""
    nodes.ensure()
    output = (cli.artifacts.parent / "output.txt").open("w")  # not a pipe, which would fill
    process = subprocess.Popen(
        cli.arguments(*LONG, nodes.address, *more),
        cwd=REPO,
        stdout=output,
        stderr=output,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    STARTED.append(process)
    run = run_of(cli, process)
    wait_for(process, lambda: len(connected(run)) == 2 and generating(run) == {"actor-0", "actor-1"})
    return process, run


def generating(run: Path) -> set[str]:
    """The actors that have generated something."""
    events = [line.rstrip(",") for line in (run / "trace.json").read_text().splitlines() if line.startswith("{")]
    rows = {e["pid"]: e["args"]["name"] for e in map(json.loads, events) if e.get("name") == "process_name"}
    return {rows[e["pid"]] for e in map(json.loads, events) if e.get("name") == "generate"}


def goes_on(process: subprocess.Popen[str], run: Path) -> None:
    """Wait for two more updates, then stop the run, and check that nothing is lost."""
    at = max(steps_of(run))
    wait_for(process, lambda: max(steps_of(run)) > at + 1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(600) == 128 + signal.SIGTERM
    assert_nothing_lost(run, max(steps_of(run)))
    assert_clean(run)


def processes_of(run: Path) -> list[psutil.Process]:
    """Our processes of a run on all nodes: those that hold its log files or belong to its folders in /dev/shm."""
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join(process.cmdline()) + " ".join(f.path for f in process.open_files())
        except psutil.Error:
            continue
        if run.name in text and "grpo_gsm8k" in text:
            found.append(process)
    return found


def folders_of(run: Path) -> list[Path]:
    return list(Path(f"/dev/shm/grpo_gsm8k.{os.getuid()}").glob(f"{run.name}*"))


def assert_clean(run: Path) -> None:
    """Within some seconds, no process and no folder of the run is left on any node."""
    until = time.monotonic() + patience(10)
    while (left := [*processes_of(run), *folders_of(run)]) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left


def test_three_updates_of_the_demo_with_an_engine_on_each_node(cli: Cli, nodes: Nodes) -> None:
    """The real engine; the weights of the second node are a copy."""
    nodes.ensure()
    process = cli.start(*SMALL, *RAY, nodes.address, "policy_gradient.updates=3", "actor.threads=1")
    output = finish(process)
    (run,) = cli.runs()
    assert_nothing_lost(run, 3)
    assert sorted(event["worker"] for event in connected(run)) == ["actor-0", "actor-1"]
    assert events_of(run, "actor_restarted") == [], output
    copied = [line for line in (run / "trace.json").read_text().splitlines() if "publish to live" in line]
    assert len(copied) >= 3  # one for each version that was used
    logs = sorted(path.name for path in (run / "logs").glob("actor-*.log"))
    assert [name.split(".")[0] for name in logs] == ["actor-0", "actor-1"]
    assert_clean(run)


@pytest.mark.more
def test_an_evaluation_uses_both_nodes(cli: Cli, nodes: Nodes) -> None:
    nodes.ensure()
    many = ("eval.temperatures=[1.0]", "eval.samples=10")  # so many that both engines are ready before the end
    words = ("command=eval", "preset=cpu_demo", "eval.num_shards=2", "actor.engine=scripted", *many)
    alone = cli.run(*words, "name=alone")
    both = cli.run(*words, "cluster=ray", nodes.address, "name=both")
    assert (alone.returncode, both.returncode) == (0, 0), both.stderr
    one, two = cli.runs()[-2:]
    logs = sorted(path.name for path in two.rglob("actor-*.log"))
    assert [name.split(".")[0] for name in logs] == ["actor-0", "actor-1"]
    assert len({name.split(".")[1] for name in logs}) == 2  # the node of each
    answers = [sorted(read_jsonl(run / "predictions.jsonl"), key=str) for run in (one, two)]
    assert answers[0] == answers[1]
    assert_clean(two)


def place_until_refused(placement: RayPlacement, config: Config, folder: Path) -> None:
    spec = engine_spec(config, folder, 0, 1)
    until = time.monotonic() + patience(120)
    while time.monotonic() < until:
        assert placement.spawn_actor(config, spec, folder, 0, lambda *_: None) is None
        time.sleep(0.2)


@pytest.mark.more
def test_a_machine_with_another_installation_is_not_used(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """This process takes itself for one with another torch."""
    from grpo_gsm8k.cluster import ray_placement

    here = ray_placement.describe()
    other = replace(here, packages=tuple("torch 1.0" if p.startswith("torch ") else p for p in here.packages))
    monkeypatch.setattr(ray_placement, "describe", lambda: other)
    words = ("command=policy_gradient", "preset=cpu_demo", "cluster=ray", nodes.address, "cluster.wait_s=30")
    config = load_config([*words, f"artifacts={tmp_path}"])
    with ray_placement.RayPlacement(config, tmp_path) as placement, pytest.raises(UserError) as caught:
        place_until_refused(placement, config, tmp_path)
    assert "has another installation: torch " in str(caught.value)
    assert "is not used, it has another installation: torch " in capfd.readouterr().err


@pytest.mark.more
def test_a_killed_worker_is_replaced(cli: Cli, nodes: Nodes) -> None:
    process, run = started(cli, nodes)
    os.kill(connected(run)[-1]["pid"], signal.SIGKILL)
    wait_for(process, lambda: len(connected(run)) == 3)
    assert len(events_of(run, "actor_restarted")) == 1
    goes_on(process, run)


@pytest.mark.more
def test_a_killed_host_is_replaced_with_its_worker(cli: Cli, nodes: Nodes) -> None:
    process, run = started(cli, nodes)
    worker = psutil.Process(connected(run)[-1]["pid"])
    worker.parent().kill()
    wait_for(process, lambda: len(connected(run)) == 3)
    assert not worker.is_running()
    goes_on(process, run)


@pytest.mark.more
def test_a_stopped_worker_counts_as_one_with_a_half_open_connection(cli: Cli, nodes: Nodes) -> None:
    """It holds its connection and says nothing, as a machine without a network does."""
    deadline = patience(5)
    process, run = started(cli, nodes, f"actor.progress_timeout_s={deadline}")
    os.kill(connected(run)[-1]["pid"], signal.SIGSTOP)
    wait_for(process, lambda: len(connected(run)) == 3)
    (event,) = events_of(run, "actor_restarted")
    assert event["reason"] in (f"silent for {deadline:g} s", f"no progress for {deadline:g} s")
    goes_on(process, run)


def test_the_run_goes_on_without_a_node_that_left_and_uses_one_that_joins(cli: Cli, nodes: Nodes) -> None:
    process, run = started(cli, nodes)
    nodes.remove()
    wait_for(process, lambda: bool(events_of(run, "actor_restarted")))
    at = max(steps_of(run))
    wait_for(process, lambda: max(steps_of(run)) > at + 3)
    assert len(connected(run)) == 2  # there is no place for another one
    nodes.add()
    wait_for(process, lambda: len(connected(run)) == 3, JOINED_SECONDS)
    goes_on(process, run)


def test_a_killed_driver_leaves_nothing_on_any_node(cli: Cli, nodes: Nodes) -> None:
    process, run = started(cli, nodes)
    pids = [event["pid"] for event in connected(run)]
    process.kill()
    process.communicate()
    own = next(folder for folder in folders_of(run) if folder.name.count(".") == 1)  # those of nodes have two dots
    until = time.monotonic() + patience(10)
    while (any(map(psutil.pid_exists, pids)) or folders_of(run) != [own]) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, pids))
    assert folders_of(run) == [own]
    assert cli.run(*SCRIPTED, "policy_gradient.updates=1").returncode == 0  # each start sweeps the folders of the dead
    assert_clean(run)


def test_a_cluster_that_cannot_be_reached_is_one_line(cli: Cli) -> None:
    result = cli.run(*SCRIPTED, *RAY, "cluster.address=127.0.0.1:1")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: cluster.address=127.0.0.1:1: ")
