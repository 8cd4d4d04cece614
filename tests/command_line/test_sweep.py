"""Sweeps run their jobs one after another; failures and signals decide what follows, and the exit code."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import load_config, main
from grpo_gsm8k.command_line import sweep, sweep_plan
from grpo_gsm8k.commands.child_command import CommandResult
from grpo_gsm8k.config import Config
from tests.conftest import Cli

WORDS = ["command=data", "preset=cpu_demo", "-m"]
DONE = CommandResult(code=0, runs=(), error=None, interrupted=None)
SMALL = (
    *("preset=cpu_demo", "actor.engine=scripted", "data.train_size=40", "data.val_size=8", "data.test_size=4"),
    *("policy_gradient.episodes_per_update=16", "wandb.mode=off"),
)
Started = list[tuple[str, ...]]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[list[CommandResult]], Started]:
    """Return a function that replaces the jobs by results; it returns the list of the words of started jobs.

    One composition, which takes a few tenths of a second, stands for those of all jobs.
    """
    monkeypatch.chdir(tmp_path)
    config = load_config(["command=data", "preset=cpu_demo"])

    def loaded(words: tuple[str, ...]) -> Config:
        given = dict(word.split("=") for word in words)
        artifacts = Path(given.get("artifacts", "artifacts"))
        return config.model_copy(
            update={"sweep": given["sweep"], "artifacts": artifacts, "command": given.get("command")}
        )

    monkeypatch.setattr(sweep_plan, "load_config", loaded)

    def replace(results: list[CommandResult]) -> Started:
        started: Started = []

        def run(words: tuple[str, ...]) -> CommandResult:
            started.append(words)
            return results[len(started) - 1]

        monkeypatch.setattr(sweep, "run_command", run)
        return started

    return replace


def failed(code: int) -> CommandResult:
    return CommandResult(code=code, runs=(), error="reason", interrupted=None)


def test_jobs_in_order(jobs, capsys: pytest.CaptureFixture[str]) -> None:
    started = jobs([DONE] * 3)
    assert main([*WORDS, "seed=2,0,1"]) == 0
    assert [words[2] for words in started] == ["seed=2", "seed=0", "seed=1"]
    assert len({word for words in started for word in words if word.startswith("sweep=")}) == 1
    assert "3 jobs done, 0 done before, 0 failed, 0 not started" in capsys.readouterr().out


@pytest.mark.parametrize(("codes", "code"), [([1, 2, 0], 1), ([0, 4, 1], 4), ([137, 0, 0], 137), ([0, 143, 0], 143)])
def test_others_run_after_a_failed_job(jobs, codes: list[int], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Also after a job that the kernel, or somebody else, has killed."""
    started = jobs([failed(one) if one else DONE for one in codes])
    assert main([*WORDS, "seed=0,1,2"]) == code
    assert len(started) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    wrong = [f"job {number} (seed={number}): exit code {one}" for number, one in enumerate(codes) if one]
    assert last == f"error: {'; '.join(wrong)}"


@pytest.mark.parametrize("last", [0, 130])
def test_a_signal_ends_the_sweep(jobs, last: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Also when the job that runs has ended well at that moment."""
    started = jobs([failed(1), CommandResult(code=last, runs=(), error=None, interrupted=signal.SIGINT)])
    assert main([*WORDS, "seed=0,1,2,3"]) == 130
    assert len(started) == 2
    printed = capsys.readouterr()
    assert "2 not started" in printed.out
    assert printed.err.splitlines()[-1].startswith("error: interrupted by SIGINT; job 0 (seed=0): exit code 1")


def test_one_job(jobs) -> None:
    started = jobs([DONE, failed(2)])
    assert main([*WORDS, "seed=range(5)", "sweep=s", "--job", "3"]) == 0
    assert main([*WORDS, "seed=range(5)", "sweep=s", "--job", "0"]) == 2
    assert [words[2:] for words in started] == [
        ("seed=3", "sweep=s", "name=seed_3"),
        ("seed=0", "sweep=s", "name=seed_0"),
    ]


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["--job", "2", "sweep=s"], "--job 2: the sweep has the jobs 0 to 1"),
        (["--job", "-1", "sweep=s"], "--job -1: the sweep has the jobs 0 to 1"),
        (["--job", "0"], "--job needs sweep=NAME"),
        (["--job", "0", "sweep=s", "command=pipeline"], "which may be another job's"),
    ],
)
def test_refused(jobs, words: list[str], needle: str, capsys: pytest.CaptureFixture[str]) -> None:
    started = jobs([])
    assert main([*WORDS, "seed=0,1", *words]) == 2
    assert needle in capsys.readouterr().err.splitlines()[-1]
    assert started == []


def record(artifacts: Path, words: tuple[str, ...], status: str) -> None:
    """Write what a run of these words leaves."""
    run = artifacts / "runs" / "sweeps" / "s" / f"20260101-00000{len(words[2])}_{words[2].replace('=', '_')}"
    run.mkdir(parents=True)
    (run / "manifest.json").write_text(json.dumps({"command_line": ["grpo-gsm8k", *words]}))
    (run / "summary.json").write_text(json.dumps({"status": status}))


def test_the_same_sweep_again_skips_what_is_done(jobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = jobs([DONE] * 3)
    words = [*WORDS, "seed=0,1,22", "sweep=s", "artifacts=a"]
    assert main(words) == 0
    record(tmp_path / "a", first[0], "done")
    record(tmp_path / "a", first[2], "interrupted")
    second = jobs([DONE] * 2)
    assert main(words) == 0
    assert second == [first[1], first[2]]
    assert "job 0 of 3: seed=0: done before, skipped" in capsys.readouterr().out
    assert main([*words, "--job", "0"]) == 0
    other = jobs([DONE] * 3)
    assert main([*words, "data.val_size=9"]) == 0  # other values are other jobs
    assert len(other) == 3


@pytest.mark.slow
def test_real_jobs_a_failure_among_them(cli: Cli) -> None:
    """The second file has a line that is not JSON, which is found when the job runs."""
    rows = [json.dumps({"question": f"{i}+1?", "answer": f"#### {i + 1}"}) for i in range(30)]
    cli.artifacts.mkdir()
    good, bad, test = (cli.artifacts / f"{name}.jsonl" for name in ("good", "bad", "test"))
    test.write_text(json.dumps({"question": "2+2?", "answer": "#### 4"}))
    good.write_text("\n".join(rows))
    bad.write_text("\n".join([*rows[:5], "{"]))
    small = ("data=jsonl", "data.val_size=4", f"data.test_path={test}")
    done = cli.run("-m", "command=data", *small, f"data.train_path={bad},{good}", "data.folder=swept")
    assert done.returncode == 2
    assert "job 1: exit code 0" in done.stdout
    assert "bad.jsonl" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("exit code 2")
    assert (cli.artifacts / "swept" / "train.jsonl").is_file()


@pytest.mark.slow
def test_ctrl_c_saves_the_running_job_and_starts_no_other(cli: Cli) -> None:
    process = cli.start("-m", "command=policy_gradient", *SMALL, "policy_gradient.updates=500", "seed=0,1", "sweep=s")
    try:
        folder, deadline = cli.artifacts / "runs" / "sweeps" / "s", time.monotonic() + 300
        while not any(folder.glob("*/rollouts/*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.2)
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130, err
    (run,) = folder.iterdir()
    assert run.name.endswith("_seed_0")
    assert any((run / "checkpoints").glob("step_*"))
    assert "1 not started" in out
    assert "interrupted by SIGINT" in err.splitlines()[-1]
