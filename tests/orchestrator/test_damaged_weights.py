"""Published weights that are damaged before an engine loads them: the learner publishes them again, nothing is lost.

The workers are stopped while the test damages a file, so that the damage lies between publication and load.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from grpo_gsm8k.transport.weights_store import WeightsStore
from tests.conftest import Cli, read_jsonl
from tests.orchestrator.test_runs import (
    SCRIPTED,
    SYNC,
    assert_equal_runs,
    assert_nothing_lost,
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
SETTLE_SECONDS = 2.0  # the actors complete all requests within a tenth of it
TURN_SECONDS = 20.0  # for an update and a publication on a busy machine, before the next try


def versions_in(run: Path) -> set[Path]:
    """Return the published folders of a run."""
    return {folder for folder in WeightsStore(Path("/dev/shm"), run).root.glob("i*/v*") if ".tmp" not in folder.name}


def damage(version: Path) -> None:
    """Change one bit in the middle of the weights."""
    file = max(version.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def pause(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    while any(psutil.Process(pid).status() != psutil.STATUS_STOPPED for pid in pids):
        time.sleep(0.001)


def go_on(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def damage_next(process: subprocess.Popen[str], run: Path, actors: list[int], newer: int = 0) -> Path:
    """Damage the next version before the actors load it, and after `newer` others followed it; they stay stopped.

    The learner is stopped first, so that the actors complete all that it has asked for: then it goes on without them.
    """
    learner = pid_of(run, "learner")
    damaged: list[Path] = []

    def caught() -> bool:
        pause(learner)
        time.sleep(SETTLE_SECONDS)
        pause(*actors)
        before, until = versions_in(run), time.monotonic() + TURN_SECONDS
        go_on(learner)
        while not damaged and time.monotonic() < until:
            found = sorted(versions_in(run) - before)
            if len(found) > newer:
                damage(found[0])
                damaged.append(found[0])
            time.sleep(0.01)
        if not damaged:
            go_on(*actors)
        return bool(damaged)

    wait_for(process, caught)
    return damaged[0]


def refused(run: Path) -> list[int]:
    return [int(event["version"]) for event in events_of(run, "weights_damaged")]


def published_again(run: Path) -> float:
    return sum(float(str(r.get("sync/published_again", 0))) for r in read_jsonl(run / "metrics.jsonl"))


@pytest.mark.parametrize("engine", ["scripted", pytest.param("vllm", marks=pytest.mark.more)])
def test_a_synchronous_run_is_bitwise_that_without_the_damage(cli: Cli, engine: str) -> None:
    words = (*SYNC, "policy_gradient.updates=3", f"actor.engine={engine}")
    assert cli.run(*words, "name=whole").returncode == 0
    (whole,) = cli.runs()
    process = cli.start(*words, "name=damaged")
    wait_for(process, lambda: len(cli.runs()) == 2 and 1 in steps_of(cli.runs()[-1]))
    run = cli.runs()[-1]
    actor = pid_of(run, "actor-0")
    version = damage_next(process, run, [actor])
    go_on(actor)
    finish(process)
    assert refused(run) == [int(version.name.removeprefix("v"))]
    assert published_again(run) == 1
    assert events_of(run, "actor_restarted") == events_of(run, "learner_restarted") == []
    assert_nothing_lost(run, updates=3)
    assert_equal_runs(whole, run, updates=3)


@pytest.mark.parametrize("words", [("learner=lora",), ("actor.replicas=2",)], ids=["adapter", "replicas"])
def test_adapters_and_several_engines(cli: Cli, words: tuple[str, ...]) -> None:
    process = cli.start(*SCRIPTED, "policy_gradient.max_staleness=0", *words)
    run = run_of(cli, process)
    wait_for(process, lambda: 1 in steps_of(run))
    actors = [pid_of(run, f"actor-{index}") for index in range(2 if "actor.replicas=2" in words else 1)]
    version = damage_next(process, run, actors)
    go_on(*actors)
    finish(process)
    assert refused(run) == [int(version.name.removeprefix("v"))] * len(actors)
    assert published_again(run) == 1
    assert_nothing_lost(run)
    assert_validations_pinned(run)


def test_a_validated_version_comes_from_its_checkpoint_when_training_has_gone_on(cli: Cli) -> None:
    words = ("policy_gradient.max_staleness=3", "policy_gradient.eval_every=1")
    process = cli.start(*SCRIPTED, *words)
    run = run_of(cli, process)
    wait_for(process, lambda: 1 in steps_of(run))
    actor = pid_of(run, "actor-0")
    version = damage_next(process, run, [actor], newer=1)
    go_on(actor)
    finish(process)
    assert refused(run) == [int(version.name.removeprefix("v"))]
    assert published_again(run) == 1
    assert_nothing_lost(run)
    assert_validations_pinned(run)
    assert [r["val/version"] for r in metrics_of(run) if "val/version" in r] == list(range(7))


def test_a_new_engine_that_finds_its_first_weights_damaged(cli: Cli) -> None:
    process = cli.start(*SCRIPTED)
    run = run_of(cli, process)
    wait_for(process, lambda: 1 in steps_of(run))
    actor, learner = pid_of(run, "actor-0"), pid_of(run, "learner")
    pause(learner)  # so that nothing newer is published
    versions = versions_in(run)
    for version in versions:
        damage(version)
    os.kill(actor, signal.SIGKILL)
    wait_for(process, lambda: bool(events_of(run, "weights_damaged")))
    go_on(learner)
    finish(process)
    assert set(refused(run)) <= {int(version.name.removeprefix("v")) for version in versions}
    assert len(events_of(run, "actor_restarted")) == 1
    assert_nothing_lost(run)
    assert_validations_pinned(run)


def test_damage_that_repeats_ends_the_run_after_two_replacements(cli: Cli) -> None:
    process = cli.start(*SCRIPTED, "policy_gradient.max_staleness=0")
    run = run_of(cli, process)
    wait_for(process, lambda: 1 in steps_of(run))
    actor, learner = pid_of(run, "actor-0"), pid_of(run, "learner")
    version = damage_next(process, run, [actor])
    for attempt in (1, 2):
        time.sleep(SETTLE_SECONDS)  # a folder has its name before the learner sends the message about it
        pause(learner)
        go_on(actor)
        wait_for(process, lambda count=attempt: len(refused(run)) == count)  # type: ignore[misc]
        pause(actor)
        go_on(learner)
        replacement = version.with_name(f"{version.name}.{attempt}")
        wait_for(process, replacement.is_dir)
        damage(replacement)
    go_on(actor)
    out = finish(process, 1)
    number = int(version.name.removeprefix("v"))
    assert refused(run) == [number] * 3
    last = out.strip().splitlines()[-1]
    assert last.startswith(f"error: weights version {number}: ")
    assert last.endswith("damaged (another digest); it was published 3 times and damaged each time")
    assert cli.run(*SCRIPTED, "policy_gradient.max_staleness=0", "policy_gradient.resume_from=latest").returncode == 0
    assert_nothing_lost(run)
