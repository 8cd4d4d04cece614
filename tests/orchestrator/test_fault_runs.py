"""Runs with faults of the machine and its users: closed terminals, pauses, kills between two records, damaged disks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from grpo_gsm8k.transport.weights_store import WeightsStore
from tests.conftest import Cli, file_system, patience
from tests.files.test_lease import owner
from tests.orchestrator.test_runs import (
    SCRIPTED,
    SMALL,
    UPDATES,
    assert_nothing_lost,
    events_of,
    finish,
    pid_of,
    run_of,
    steps_of,
    wait_for,
)

pytestmark = pytest.mark.slow


def status_of(run: Path) -> str:
    return str(json.loads((run / "summary.json").read_text())["status"])


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_a_closed_terminal_ends_the_run_after_a_checkpoint(cli: Cli, number: signal.Signals) -> None:
    process = subprocess.Popen(  # HUP as if the tests did not run under nohup, QUIT as for a job in the background
        ["env", "--default-signal=HUP", "--ignore-signal=QUIT", *cli.arguments(*SCRIPTED)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = run_of(cli, process)
    wait_for(process, lambda: 1 in steps_of(run))
    workers = psutil.Process(process.pid).children()
    for target in (process, *workers):  # the kernel sends it to the whole group of a terminal
        os.kill(target.pid, number)
    finish(process, 128 + number)
    steps = steps_of(run)
    assert len(steps) < UPDATES
    assert (run / f"checkpoints/step_{steps[-1]}/manifest.json").exists()
    assert not WeightsStore(Path("/dev/shm"), run).root.exists()
    assert status_of(run) == "interrupted"
    assert cli.run(*SCRIPTED, "policy_gradient.resume_from=latest").returncode == 0
    assert_nothing_lost(run)


def test_under_nohup_a_closed_terminal_is_ignored(cli: Cli) -> None:
    process = subprocess.Popen(
        ["nohup", *cli.arguments(*SCRIPTED)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    run = run_of(cli, process)
    wait_for(process, lambda: 1 in steps_of(run))
    process.send_signal(signal.SIGHUP)
    finish(process)
    assert_nothing_lost(run)


def test_a_paused_orchestrator_replaces_nobody(cli: Cli) -> None:
    deadline = patience(5)
    process = cli.start(*SCRIPTED, f"actor.progress_timeout_s={deadline}", f"learner.progress_timeout_s={deadline}")
    run = run_of(cli, process)
    wait_for(process, lambda: 1 in steps_of(run))
    process.send_signal(signal.SIGSTOP)
    time.sleep(deadline + 3)  # longer than the deadlines
    process.send_signal(signal.SIGCONT)
    finish(process)
    (paused,) = events_of(run, "paused")
    assert paused["seconds"] > 5
    assert events_of(run, "actor_restarted") == events_of(run, "learner_restarted") == []
    assert_nothing_lost(run)


def test_a_checkpoint_is_never_ahead_of_its_records(cli: Cli) -> None:
    process = cli.start(*SCRIPTED, "policy_gradient.save_every=1", "policy_gradient.max_staleness=2")
    run = run_of(cli, process)
    wait_for(process, lambda: 1 in steps_of(run))

    def written() -> list[Path]:
        return list((run / "checkpoints").glob(".step_*.tmp/manifest.json"))

    def held_back() -> bool:
        """Stop the orchestrator; whether the learner then has a checkpoint that lacks nothing but its name."""
        process.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 3
        while not written() and time.monotonic() < until:
            time.sleep(0.02)
        if not written():
            process.send_signal(signal.SIGCONT)
        return bool(written())

    wait_for(process, held_back)
    time.sleep(1)
    (manifest,) = written()  # it waits
    step = int(manifest.parent.name.split(".")[1].removeprefix("step_"))
    assert step not in steps_of(run)
    assert not (run / f"checkpoints/step_{step}").exists()
    process.kill()
    process.wait()
    assert cli.run(*SCRIPTED, "policy_gradient.resume_from=latest").returncode == 0
    assert written() == []
    assert_nothing_lost(run)


def test_workers_that_are_still_importing_end_with_the_orchestrator(cli: Cli) -> None:
    process = cli.start(*SCRIPTED)
    run = run_of(cli, process)
    wait_for(process, lambda: len(events_of(run, "worker_started")) == 2)
    family = psutil.Process(process.pid).children(recursive=True)
    workers = [p for p in family if "resource_tracker" not in " ".join(p.cmdline())]
    process.kill()
    process.wait()
    assert len(workers) == 2
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert events_of(run, "start_phase") == []  # none had begun its work


def test_all_checkpoints_damaged(cli: Cli) -> None:
    assert cli.run(*SCRIPTED).returncode == 0
    run = cli.runs()[-1]
    folders = sorted((run / "checkpoints").glob("step_*"))
    for folder in folders:
        damage(folder / "optimizer.safetensors")
    before = (run / "metrics.jsonl").read_bytes(), (run / "ledger.jsonl").read_bytes()
    done = cli.run(*SCRIPTED, f"policy_gradient.resume_from={run}")
    assert done.returncode == 1
    assert f"all {len(folders)} checkpoints in {run / 'checkpoints'} are damaged" in done.stderr.splitlines()[-1]
    assert sorted((run / "checkpoints/damaged").iterdir()) == [run / "checkpoints/damaged" / f.name for f in folders]
    assert ((run / "metrics.jsonl").read_bytes(), (run / "ledger.jsonl").read_bytes()) == before


def test_a_signal_during_the_last_validation(cli: Cli) -> None:
    words = (
        *SMALL,
        "policy_gradient.eval_limit=512",
        "policy_gradient.updates=2",
    )
    process = cli.start(*words)
    run = run_of(cli, process)
    wait_for(process, lambda: steps_of(run) == [1, 2])
    process.send_signal(signal.SIGTERM)
    finish(process, 128 + signal.SIGTERM)
    assert not (run / "validation/step_2.parquet").exists()  # the signal came before its end
    assert status_of(run) == "interrupted"
    done = cli.run(*words, "policy_gradient.resume_from=latest")
    assert done.returncode == 0, done.stderr
    assert status_of(run) == "done"
    assert (run / "validation/step_2.parquet").exists()
    assert_nothing_lost(run, updates=2)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which the test can fill."""
    with file_system(tmp_path / "disk", "300m") as folder:
        yield folder


def start_and_fill(disk: Path, *words: str) -> tuple[Cli, Path, subprocess.Popen[str]]:
    """Start a run that saves after each update; after the third checkpoint its disk has room for half of one."""
    cli = Cli(disk / "artifacts")
    process = cli.start(*SCRIPTED, "policy_gradient.save_every=1", *words)
    run = run_of(cli, process)
    newest = run / "checkpoints/step_3"
    wait_for(process, newest.is_dir)
    learner = pid_of(run, "learner")
    os.kill(learner, signal.SIGSTOP)
    size = sum(path.stat().st_blocks * 512 for path in newest.rglob("*"))
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - size // 2))
    os.kill(learner, signal.SIGCONT)
    return cli, run, process


def test_a_full_disk_deletes_the_oldest_checkpoint_that_is_not_the_best(disk: Path) -> None:
    """The best one is that of update 3: the others were not validated."""
    _, run, process = start_and_fill(disk, "policy_gradient.keep_last=3")
    wait_for(process, lambda: bool(events_of(run, "checkpoints_deleted")))
    (disk / "filler").unlink()  # the report needs room, too
    out = finish(process)
    deleted = [step for event in events_of(run, "checkpoints_deleted") for step in event["steps"]]
    assert deleted
    assert deleted == sorted(deleted)
    assert deleted[0] in (1, 2)
    assert 3 not in deleted
    assert re.search(rf"checkpoints {deleted[0]}\b.* were deleted to make room: ", out)
    assert "were deleted to make room for" in (run / "logs/learner.log").read_text()
    assert (run / f"checkpoints/step_{UPDATES}/manifest.json").exists()
    assert_nothing_lost(run)


def test_a_full_disk_stops_a_run_that_keeps_every_checkpoint(disk: Path) -> None:
    cli, run, process = start_and_fill(disk, "policy_gradient.keep_last=all")
    last = finish(process, 1).strip().splitlines()[-1]
    assert re.fullmatch(rf"error: {run}/checkpoints/step_\d .*\d+ bytes .*", last), last
    assert events_of(run, "checkpoints_deleted") == events_of(run, "learner_restarted") == []
    assert list((run / "checkpoints").glob(".*")) == []
    (disk / "filler").unlink()
    words = ("policy_gradient.save_every=1", "policy_gradient.keep_last=all")
    assert cli.run(*SCRIPTED, *words, f"policy_gradient.resume_from={run}").returncode == 0
    assert_nothing_lost(run)


def test_a_second_writer_with_another_shm_folder_is_refused(cli: Cli, tmp_path: Path) -> None:
    process = cli.start(*SCRIPTED)
    run = run_of(cli, process)
    wait_for(process, lambda: bool(events_of(run, "checkpoint")))
    (tmp_path / "shm").mkdir()
    process.send_signal(signal.SIGSTOP)  # so that it is not done before the second one has started
    second = cli.run(*SCRIPTED, f"policy_gradient.resume_from={run}", f"shm={tmp_path / 'shm'}")
    assert process.poll() is None  # the first one was still writing
    process.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert second.stderr.strip().splitlines()[-1] == (
        f"error: {run} is in use by another process: wait for it, or stop it"
    )
    finish(process)
    assert_nothing_lost(run)


def test_a_writer_on_another_machine_is_refused_and_a_dead_one_succeeded(cli: Cli) -> None:
    """The other machine does not see this one's locks: its process holds the lease alone."""
    assert cli.run(*SCRIPTED, "policy_gradient.updates=3").returncode == 0
    (run,) = cli.runs()
    before = (run / "metrics.jsonl").read_bytes()
    words = (*SCRIPTED, f"policy_gradient.resume_from={run}")
    with owner(run, "elsewhere") as other:
        refused = cli.run(*words)
        assert other.poll() is None
        assert refused.returncode == 2
        assert f"(process {other.pid}): wait for it, or stop it there" in refused.stderr.splitlines()[-1]
        assert (run / "metrics.jsonl").read_bytes() == before
        other.kill()
        other.wait()
        done = cli.run(*words)
    assert done.returncode == 0, done.stderr
    assert "watching for" in done.stderr
    assert_nothing_lost(run)
