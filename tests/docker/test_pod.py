"""The start command of a RunPod pod: what it restores, when it resumes a run, and what an interruption loses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from grpo_gsm8k.tracking import ledger
from tests.conftest import REPO, read_jsonl

START = str(REPO / "docker/runpod/start.sh")
GRACE_SECONDS = 5  # between RunPod's SIGTERM and its SIGKILL
UPDATES = 2
# Many epochs per batch, so that one update takes much longer than the grace period.
TRAINING = (
    "command=policy_gradient",
    "preset=cpu_demo",
    "wandb.mode=offline",
    f"policy_gradient.updates={UPDATES}",
    "policy_gradient.episodes_per_update=128",
    "policy_gradient.epochs_per_batch=30",
    "policy_gradient.eval_limit=32",
    "learner.lr=1e-5",
)


class Pod:
    """The start command with its own network volume."""

    def __init__(self, volume: Path) -> None:
        self.volume = volume

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        values = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GRPO_VOLUME": str(self.volume),
            "GRPO_WHEN_DONE": "echo this is afterwards",
            "GRPO_SYNC_SECONDS": "1",
        }
        return subprocess.Popen(
            [START, *arguments],
            env={**values, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        process = self.start(*arguments, **environment)
        try:
            output = process.communicate(timeout=900)[0]
        finally:
            kill_pod(process)
        return process.returncode, output

    def runs(self) -> list[Path]:
        return sorted((self.volume / "artifacts/runs").glob("*"))


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    (tmp_path / "volume").mkdir()
    return Pod(tmp_path / "volume")


def kill_pod(process: subprocess.Popen[str]) -> int:
    """Kill all processes, as when a container ends. Returns how many there were."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)
    return len(family)


def test_a_volume_that_cannot_be_written_to_is_one_line(pod: Pod) -> None:
    code, output = pod.run(*TRAINING, GRPO_VOLUME="/proc/no_volume")
    assert code == 2
    assert "START_USER=root" in output.splitlines()[-1]
    assert output.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("argument", ["name=mine", "artifacts=elsewhere"])
def test_arguments_set_by_the_pod_are_refused(pod: Pod, argument: str) -> None:
    code, output = pod.run(*TRAINING, argument)
    assert code == 2
    assert argument in output.splitlines()[-1]
    assert pod.runs() == []


def test_without_arguments_it_waits_for_a_login(pod: Pod) -> None:
    code, output = pod.run(GRPO_ARGS="")
    assert code == 0
    assert output.splitlines()[-1] == "this is afterwards"
    assert (pod.volume / "cache/huggingface").is_dir()


def test_gits_identity_is_on_the_volume(pod: Pod) -> None:
    asked = 'git config --global user.email || git config --global user.email "me@example.org"'
    assert "git has no identity yet" in pod.run(GRPO_WHEN_DONE=asked)[1]
    code, output = pod.run(GRPO_WHEN_DONE=asked)
    assert output.splitlines()[-1] == "me@example.org"
    assert code == 0


def test_arguments_come_from_the_environment_and_errors_are_passed_on(pod: Pod) -> None:
    code, output = pod.run(GRPO_ARGS="command=policy_gradient  preset=cpu_demo policy_gradient.no_such_key=1")
    assert code == 2
    assert "policy_gradient.no_such_key" in output
    assert "this is afterwards" not in output


@pytest.mark.parametrize(
    ("status", "resumed"), [("done", False), ("stopped early", False), ("interrupted", True), ("failed", True)]
)
def test_only_a_run_that_is_not_done_is_resumed(pod: Pod, status: str, resumed: bool) -> None:
    for stamp, name in (("20260101-000000", "pod"), ("20260102-000000", "pod"), ("20260103-000000", "other_pod")):
        folder = pod.volume / "artifacts/runs" / f"{stamp}_{name}"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps({"status": status}))
    code, output = pod.run("command=policy_gradient", "preset=cpu_demo", "policy_gradient.no_such_key=1")
    assert code == (2 if resumed else 0)
    latest = pod.volume / "artifacts/runs/20260102-000000_pod"
    assert (f"policy_gradient.resume_from={latest}" in output) == resumed
    assert (f"{latest} is done" in output) == (not resumed)


def steps_of(run: Path) -> list[object]:
    path = run / "metrics.jsonl"
    return [record["step"] for record in read_jsonl(path) if "step" in record] if path.exists() else []


def has_started(run: Path) -> bool:
    """Whether the run's first event is written, and not only its file created."""
    path = run / "events.jsonl"
    return path.exists() and path.read_text().endswith("\n")


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


@pytest.mark.slow
def test_an_interruption_only_loses_the_running_update(pod: Pod) -> None:
    """Interrupt twice: before the first checkpoint, and during the second update."""
    process = pod.start(*TRAINING)
    wait_for(process, lambda: bool(pod.runs()) and has_started(pod.runs()[0]))
    kill_pod(process)
    process.communicate()

    process = pod.start(*TRAINING)
    wait_for(process, lambda: 1 in steps_of(pod.runs()[0]))
    (run,) = pod.runs()  # the same run was resumed
    wait_for(process, (run / "checkpoints/step_1/manifest.json").exists)
    process.send_signal(signal.SIGTERM)
    until = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, "the run ended within the grace period: this machine needs a longer update"
        time.sleep(0.05)
    assert steps_of(run) == [1]
    assert kill_pod(process) >= 4  # start.sh, orchestrator, actor, learner: they were all still running
    process.communicate()

    code, output = pod.run(*TRAINING)
    assert code == 0, output
    assert f"policy_gradient.resume_from={run}" in output
    assert output.splitlines()[-1] == "this is afterwards"
    assert pod.runs() == [run]
    assert steps_of(run) == list(range(1, UPDATES + 1))
    starts = [event for event in read_jsonl(run / "events.jsonl") if event["kind"] == "start"]
    assert len(starts) == 3
    saved = [event["step"] for event in read_jsonl(run / "events.jsonl") if event["kind"] == "checkpoint"]
    assert saved == list(range(1, UPDATES + 1))  # update 1 was not repeated
    account = ledger.read(run / "ledger.jsonl")
    uses = [(use.epoch, use.prompt_id) for use in account.uses()]
    assert len(uses) == len(set(uses)) == UPDATES * 16

    code, output = pod.run(*TRAINING)
    assert code == 0
    assert f"{run} is done" in output
