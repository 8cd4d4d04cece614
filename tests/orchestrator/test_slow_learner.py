"""A learner that is ten times slower than its engine's pace allows, over 200 updates: nothing accumulates."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from grpo_gsm8k.transport.weights_store import WeightsStore
from tests.conftest import Cli
from tests.orchestrator.test_runs import SCRIPTED, finish, metrics_of, pid_of, run_of, steps_of, wait_for

pytestmark = pytest.mark.slow
UPDATES = 200
STALENESS = 2
WORDS = (
    *SCRIPTED,
    f"policy_gradient.updates={UPDATES}",
    "policy_gradient.episodes_per_update=16",
    "policy_gradient.max_new_tokens=16",
    f"policy_gradient.max_staleness={STALENESS}",
    "policy_gradient.eval_every=1000",
    "policy_gradient.save_every=1000",
)
RUN_SECONDS = 0.02
SLOWER = 10
GROWTH = 1.1  # of a mean over the last third of the run, against the middle third


@dataclass(frozen=True)
class Sample:
    """What the run holds at one time: numbers by process, and files of weights."""

    step: int
    memory: list[int]
    descriptors: list[int]
    threads: list[int]
    versions: int
    shm_bytes: int


def bytes_of_weights(root: Path) -> int:
    """Return the bytes that the files of weights hold; the run deletes versions while this reads."""
    total = 0
    for version in root.glob("i*/v*"):
        with contextlib.suppress(FileNotFoundError):
            total += sum(entry.stat().st_blocks * 512 for entry in os.scandir(version))
    return total


def sample(run: Path, processes: Sequence[psutil.Process]) -> Sample:
    root = WeightsStore(Path("/dev/shm"), run).root
    return Sample(
        step=max(steps_of(run), default=0),
        memory=[p.memory_info().rss for p in processes],
        descriptors=[p.num_fds() for p in processes],
        threads=[p.num_threads() for p in processes],
        versions=len(list(root.glob("i*/v*"))),
        shm_bytes=bytes_of_weights(root),
    )


def slowed(process: subprocess.Popen[str], run: Path, learner: int) -> tuple[list[Sample], float]:
    """Let the learner run for a tenth of the time to the end; returns samples, and the share of time it was stopped."""
    processes = [psutil.Process(pid) for pid in (process.pid, learner, pid_of(run, "actor-0"))]
    samples: list[Sample] = []
    began, stopped_s, next_sample = time.monotonic(), 0.0, 0.0
    while process.poll() is None and max(steps_of(run), default=0) < UPDATES - 5:
        os.kill(learner, signal.SIGSTOP)
        since = time.monotonic()
        if since >= next_sample:
            samples.append(sample(run, processes))
            next_sample = since + 0.5
        time.sleep(RUN_SECONDS * (SLOWER - 1))
        stopped_s += time.monotonic() - since
        os.kill(learner, signal.SIGCONT)
        time.sleep(RUN_SECONDS)
    return samples, stopped_s / (time.monotonic() - began)


def assert_flat(values: Sequence[float], name: str) -> None:
    third = len(values) // 3
    middle, last = statistics.mean(values[third : 2 * third]), statistics.mean(values[2 * third :])
    assert last <= GROWTH * middle, (name, middle, last)


def test_nothing_grows_over_200_updates_of_a_slow_learner(cli: Cli) -> None:
    process = cli.start(*WORDS)
    run = run_of(cli, process)
    wait_for(process, lambda: 1 in steps_of(run))
    samples, stopped = slowed(process, run, pid_of(run, "learner"))
    finish(process)
    assert stopped > 0.75  # the fault fired
    assert len(samples) >= 30
    assert steps_of(run) == list(range(1, UPDATES + 1))
    for index, name in enumerate(("orchestrator", "learner", "actor")):
        assert_flat([s.memory[index] for s in samples], f"memory of the {name}")
        assert_flat([s.descriptors[index] for s in samples], f"descriptors of the {name}")
        assert_flat([s.threads[index] for s in samples], f"threads of the {name}")
    # As preflight counts them: the live one, those by which updates may be ahead of it, and the one being written,
    # which may be there while another one is being deleted.
    assert max(s.versions for s in samples) <= STALENESS + 2
    weights = next((run / "checkpoints").glob("*/model/model.safetensors")).stat().st_size
    assert max(s.shm_bytes for s in samples) <= 1.05 * (STALENESS + 3) * weights
    steps = [r for r in metrics_of(run) if "step" in r]
    assert 0 < max(r["rollout/staleness_max"] for r in steps) <= STALENESS  # requests wait for updates, none pile up
