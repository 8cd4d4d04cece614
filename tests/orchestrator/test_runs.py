"""Complete runs from the command line, with the real engine unless SCRIPTED: determinism, resume, killed workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForCausalLM

from grpo_gsm8k.tracking import ledger
from grpo_gsm8k.tracking.cpu_allocator import LIBRARIES, installed_allocator
from grpo_gsm8k.tracking.hardware import usable_cores
from grpo_gsm8k.transport.weights_store import WeightsStore
from tests.conftest import Cli, read_jsonl

pytestmark = pytest.mark.slow
UPDATES = 6
SMALL = (
    "command=policy_gradient",
    "preset=cpu_demo",
    "wandb.mode=off",
    f"policy_gradient.updates={UPDATES}",
    "policy_gradient.episodes_per_update=64",
    "policy_gradient.eval_every=3",
    "policy_gradient.eval_limit=32",
    "policy_gradient.save_every=2",
)
SYNC = (*SMALL, "policy_gradient.max_staleness=0", "deterministic=true")
SCRIPTED = (*SMALL, "actor.engine=scripted")
TIMED = (
    "time/",
    "mem/",
    "sync/publish_s",
    "sync/verify_s",
    "sync/load_s",
    "sync/canary_gap",
    "sync/published_again",
    "rollout/tokens_per_s",
    "train/tokens_per_s",
    "val/seconds",
)


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """Return the records of metrics.jsonl without timings and faults survived, steps first, then validations."""
    records = [{k: v for k, v in r.items() if not k.startswith(TIMED)} for r in read_jsonl(run / "metrics.jsonl")]
    return sorted(records, key=lambda r: ("step" not in r, r.get("step", r.get("val/version"))))


def steps_of(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    return [r["step"] for r in read_jsonl(path) if "step" in r] if path.exists() else []


def events_of(run: Path, kind: str) -> list[dict[str, Any]]:
    return [e for e in read_jsonl(run / "events.jsonl") if e["kind"] == kind]


def pid_of(run: Path, worker: str) -> int:
    return next(e["pid"] for e in reversed(events_of(run, "worker_started")) if e["worker"] == worker)


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Wait for `condition`; fails when the run ends before it holds."""
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def run_of(cli: Cli, process: subprocess.Popen[str]) -> Path:
    wait_for(process, lambda: bool(cli.runs()) and (cli.runs()[-1] / "events.jsonl").exists())
    return cli.runs()[-1]


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, err
    return out + err


def assert_nothing_lost(run: Path, updates: int = UPDATES) -> None:
    """Assert that metrics have every step once, and that the ledger has every prompt of the epoch once."""
    assert steps_of(run) == list(range(1, updates + 1))
    account = ledger.read(run / "ledger.jsonl")
    assert sorted(account.steps) == list(range(1, updates + 1))
    uses = [(u.epoch, u.prompt_id) for u in account.uses()]
    assert len(uses) == len(set(uses)) == updates * 8
    for step in range(1, updates + 1):
        rows = pq.read_table(run / "rollouts" / f"step_{step}.parquet").to_pylist()
        assert {r["prompt_id"] for r in rows} == {u.prompt_id for u in account.steps[step]}


def assert_validations_pinned(run: Path) -> None:
    for path in (run / "validation").glob("step_*.parquet"):
        version = int(path.stem.removeprefix("step_"))
        rows = pq.read_table(path).to_pylist()
        assert len(rows) == 32
        assert {(r["version_min"], r["version_max"]) for r in rows} == {(version, version)}


@pytest.fixture(scope="module")
def sync_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cli = Cli(tmp_path_factory.mktemp("sync") / "artifacts")
    done = cli.run(*SYNC)
    assert done.returncode == 0, done.stderr
    return cli.runs()[-1]


def assert_equal_runs(one: Path, other: Path, updates: int = UPDATES) -> None:
    assert metrics_of(one) == metrics_of(other)
    last = f"checkpoints/step_{updates}"
    files = [path.relative_to(one / last) for path in (one / last).rglob("*.safetensors")]
    assert len(files) >= 3
    for file in files:
        assert (one / last / file).read_bytes() == (other / last / file).read_bytes(), file


def test_synchronous_run(sync_run: Path) -> None:
    """It is on-policy, engine and learner agree in float32, and all files are written."""
    assert_nothing_lost(sync_run)
    assert_validations_pinned(sync_run)
    records = metrics_of(sync_run)
    steps = [r for r in records if "step" in r]
    assert {r["rollout/staleness_max"] for r in steps} == {0.0}
    assert max(r["sync/logprob_gap_max"] for r in steps) < 1e-3
    gaps = [float(str(r["sync/canary_gap"])) for r in read_jsonl(sync_run / "metrics.jsonl") if "step" in r]
    assert max(gaps) < 1e-3
    assert [r["val/version"] for r in records if "val/version" in r] == [0, 3, 6]
    assert sum(steps[-1][f"train/{k}"] for k in ("grad_norm",)) > 0
    AutoModelForCausalLM.from_pretrained(sync_run / f"checkpoints/step_{UPDATES}/model")
    for validation in records[-3:]:
        kinds = ("accuracy", "truncated_frac", "format_error_frac", "logic_error_frac")
        assert sum(validation[f"val/{k}"] for k in kinds) == pytest.approx(1)
    assert not list(Path("/dev/shm").glob(f"grpo_gsm8k.{os.getuid()}/{sync_run.name}.*"))


def test_two_seeded_synchronous_runs_are_bitwise_equal(sync_run: Path, cli: Cli) -> None:
    assert cli.run(*SYNC).returncode == 0
    assert_equal_runs(sync_run, cli.runs()[-1])


def test_interrupted_and_resumed_equals_uninterrupted(sync_run: Path, cli: Cli) -> None:
    process = cli.start(*SYNC)
    run = run_of(cli, process)
    wait_for(process, lambda: 2 in steps_of(run))
    process.send_signal(signal.SIGTERM)
    finish(process, 128 + signal.SIGTERM)
    done = len(steps_of(run))
    assert 2 <= done < UPDATES
    assert (run / f"checkpoints/step_{done}").is_dir()  # so no update is repeated
    resumed = cli.run(*SYNC, "policy_gradient.resume_from=latest")
    assert resumed.returncode == 0, resumed.stderr
    assert cli.runs() == [run]
    assert_nothing_lost(run)
    assert_equal_runs(sync_run, run)


def spans_of(run: Path, worker: str) -> list[dict[str, Any]]:
    """Return the spans of a worker in trace.json, oldest first."""
    events = json.loads((run / "trace.json").read_text())
    (row,) = {e["pid"] for e in events if e["ph"] == "M" and e["args"]["name"] == worker}
    return sorted((e for e in events if e["ph"] == "X" and e["pid"] == row), key=lambda e: e["ts"])


def test_the_timeline_of_a_synchronous_run(sync_run: Path) -> None:
    """The spans of a worker do not overlap, and every update and weight version has its spans, in order."""
    learner, actor = spans_of(sync_run, "learner"), spans_of(sync_run, "actor-0")
    for spans in (learner, actor):
        ends = [e["ts"] + e["dur"] for e in spans]
        assert all(end <= e["ts"] + 1000 for end, e in zip(ends, spans[1:], strict=False))  # to a millisecond
    versions = [(e["name"], e["args"]["version"]) for e in learner]
    assert [v for name, v in versions if name == "update"] == list(range(UPDATES))
    assert [v for name, v in versions if name == "publish"] == list(range(UPDATES + 1))
    assert [e["args"]["version"] for e in actor if e["name"] == "load"] == list(range(UPDATES + 1))
    for update in (e for e in learner if e["name"] == "update"):
        rollouts = [e for e in actor if e["name"] == "generate" and e["args"]["version"] == update["args"]["version"]]
        assert min(e["ts"] for e in rollouts) < update["ts"]
    marks = {e["name"] for e in json.loads((sync_run / "trace.json").read_text()) if e["ph"] == "i"}
    assert {"start", "worker_started", "checkpoint", "end"} <= marks


def test_both_processes_use_the_allocator_that_is_installed(cli: Cli) -> None:
    process = cli.start(*SCRIPTED, "policy_gradient.updates=1000")
    run = run_of(cli, process)
    wait_for(process, lambda: 1 in steps_of(run))
    mapped = [Path(f"/proc/{pid_of(run, worker)}/maps").read_text() for worker in ("learner", "actor-0")]
    process.send_signal(signal.SIGTERM)
    finish(process, 128 + signal.SIGTERM)
    assert [installed_allocator() is not None] * 2 == [any(name in text for name in LIBRARIES) for text in mapped]


def test_an_engine_on_the_learners_cores_finishes_its_validation_before_an_update(cli: Cli) -> None:
    threads = usable_cores()
    words = ("policy_gradient.max_staleness=0", f"actor.threads={threads}", f"learner.threads={threads}")
    assert cli.run(*SCRIPTED, *words).returncode == 0
    (run,) = cli.runs()
    names = [(e["name"], e["args"]["version"]) for e in spans_of(run, "learner")]
    for version in (0, 3):  # due every third update, and not after the last one
        assert names.index(("wait for validations", version)) < names.index(("update", version))


METHODS = {
    "ppo": (
        "policy_gradient=ppo",
        "policy_gradient.kl.coef=0.05",
        "policy_gradient.kl.place=reward",
        "policy_gradient.kl.target=0.01",
        "policy_gradient.kl.horizon=100",
    ),
    "dapo": ("policy_gradient=dapo", "policy_gradient.active_sampling=6"),
}


@pytest.mark.parametrize("method", METHODS)
def test_methods_with_more_state_resume_bitwise_and_replay(cli: Cli, method: str) -> None:
    """State: critic and KL coefficient (ppo), or the prompts that active sampling assigned to updates (dapo)."""
    arguments = (*SYNC, *METHODS[method], "policy_gradient.record=true")
    whole = cli.run(*arguments, "name=whole")
    assert whole.returncode == 0, whole.stderr
    (uninterrupted,) = cli.runs()
    process = cli.start(*arguments, "name=cut")
    wait_for(process, lambda: len(cli.runs()) == 2 and 2 in steps_of(cli.runs()[-1]))
    process.send_signal(signal.SIGTERM)
    finish(process, 128 + signal.SIGTERM)
    cut = cli.runs()[-1]
    assert len(steps_of(cut)) < UPDATES
    resumed = cli.run(*arguments, "name=cut", f"policy_gradient.resume_from={cut}")
    assert resumed.returncode == 0, resumed.stderr
    assert_equal_runs(uninterrupted, cut)
    assert ledger.read(uninterrupted / "ledger.jsonl").uses() == ledger.read(cut / "ledger.jsonl").uses()
    steps = [r for r in metrics_of(cut) if "step" in r]
    if method == "ppo":
        assert len({r["train/kl_coef"] for r in steps}) > 1  # it was adapted
        assert (cut / f"checkpoints/step_{UPDATES}/critic.safetensors").exists()
    else:
        dropped = [u for u in ledger.read(cut / "ledger.jsonl").uses() if u.reason]
        assert len(dropped) == sum(r["rollout/resampled_prompts"] for r in steps) > 0
    replayed = cli.run("command=replay", f"run={cut}", f"step={UPDATES}")
    assert replayed.returncode == 0, replayed.stderr
    rows = [line.split() for line in replayed.stdout.splitlines()[-2:]]
    assert [(row[0], float(row[3])) for row in rows] == [("loss", 0.0), ("grad_norm", 0.0)]


def test_killed_actor_gets_the_newest_adapter(cli: Cli) -> None:
    process = cli.start(*SMALL, "learner=lora", "actor.max_num_seqs=64")
    run = run_of(cli, process)
    wait_for(process, lambda: 1 in steps_of(run))
    os.kill(pid_of(run, "actor-0"), signal.SIGKILL)
    finish(process)
    assert len(events_of(run, "actor_restarted")) == 1
    assert_nothing_lost(run)
    assert_validations_pinned(run)
    steps = [r for r in metrics_of(run) if "step" in r]
    assert max(r["sync/logprob_gap_max"] for r in steps if "sync/logprob_gap_max" in r) < 1e-3
    gaps = [float(str(r["sync/canary_gap"])) for r in read_jsonl(run / "metrics.jsonl") if "sync/canary_gap" in r]
    assert max(gaps) < 1e-3


def test_killed_actor_is_replaced_and_nothing_is_lost(cli: Cli) -> None:
    process = cli.start(*SMALL, "policy_gradient.max_staleness=2")
    run = run_of(cli, process)
    wait_for(process, lambda: 1 in steps_of(run))
    actor, learner = pid_of(run, "actor-0"), pid_of(run, "learner")
    os.kill(actor, signal.SIGKILL)
    finish(process)
    (restart,) = events_of(run, "actor_restarted")
    assert "-9" in restart["reason"]  # the fault fired
    assert len(steps_of(run)) == UPDATES
    assert pid_of(run, "actor-0") != actor
    assert pid_of(run, "learner") == learner
    assert_nothing_lost(run)
    assert_validations_pinned(run)
    staleness = [r["rollout/staleness_max"] for r in metrics_of(run) if "step" in r]
    assert 0 < max(staleness) <= 2
    updates = [e for e in spans_of(run, "learner") if e["name"] == "update"]
    rollouts = [e for e in spans_of(run, "actor-0") if e["name"] == "generate"]
    both = [u for u in updates for r in rollouts if r["ts"] < u["ts"] + u["dur"] and u["ts"] < r["ts"] + r["dur"]]
    assert both  # updates and generation overlap


def test_killed_learner_continues_from_its_checkpoint_with_a_warm_engine(cli: Cli) -> None:
    process = cli.start(*SMALL)
    run = run_of(cli, process)
    wait_for(process, lambda: (run / "checkpoints/step_2").is_dir() and 3 in steps_of(run))
    actor, learner = pid_of(run, "actor-0"), pid_of(run, "learner")
    os.kill(learner, signal.SIGKILL)
    finish(process)
    (restart,) = events_of(run, "learner_restarted")
    assert "-9" in restart["reason"]
    assert pid_of(run, "actor-0") == actor
    assert pid_of(run, "learner") != learner
    assert_nothing_lost(run)
    assert_validations_pinned(run)


def test_killed_orchestrator_leaves_nothing_and_the_run_can_be_resumed(cli: Cli) -> None:
    process = cli.start(*SMALL)
    run = run_of(cli, process)
    wait_for(process, lambda: (run / "checkpoints/step_2").is_dir())
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    process.kill()
    process.wait()
    psutil.wait_procs(family, timeout=10)
    assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    shm = WeightsStore(Path("/dev/shm"), run).root
    assert shm.exists()  # there was something to sweep
    other = cli.start(*SMALL, "policy_gradient.resume_from=latest")
    wait_for(other, lambda: len(events_of(run, "start")) == 2)
    finish(other)
    assert not shm.exists()
    assert_nothing_lost(run)


def test_stopped_actor_is_replaced_after_its_deadline(cli: Cli) -> None:
    process = cli.start(*SCRIPTED, "actor.progress_timeout_s=5")
    run = run_of(cli, process)
    wait_for(process, lambda: bool(events_of(run, "worker_started")) and 1 in steps_of(run))
    os.kill(pid_of(run, "actor-0"), signal.SIGSTOP)
    finish(process)
    # The reason depends on whether the last heartbeat before the stop reported progress.
    reasons = {e["reason"] for e in events_of(run, "actor_restarted")}
    assert reasons
    assert reasons <= {"silent for 5 s", "no progress for 5 s"}
    assert_nothing_lost(run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_start_up_ends_the_run_at_once(cli: Cli, number: signal.Signals) -> None:
    process = cli.start(*SCRIPTED)
    run = run_of(cli, process)
    wait_for(process, lambda: bool(events_of(run, "worker_started")))
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    finish(process, 128 + number)
    psutil.wait_procs(family, timeout=10)
    assert not [p for p in family if p.is_running()]


def test_cores_that_do_not_exist_end_the_run_at_once(cli: Cli) -> None:
    done = cli.run(*SCRIPTED, f"actor.cores=[{(os.cpu_count() or 1) + 4096}]")
    assert done.returncode == 2
    assert "this process may use the cores" in done.stderr.strip().splitlines()[-1]
    assert events_of(cli.runs()[-1], "actor_restarted") == []


def test_an_error_that_the_learner_finds_ends_the_waiting_actor_quietly(cli: Cli) -> None:
    done = cli.run(*SCRIPTED, "actor.max_model_len=64", "policy_gradient.max_new_tokens=60")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: no training prompt fits into")
    run = cli.runs()[-1]
    assert {event["worker"] for event in events_of(run, "worker_started")} == {"learner", "actor-0"}
    assert events_of(run, "actor_restarted") == []
    assert (run / "logs" / "actor-0.log").read_text() == ""
    assert not psutil.pid_exists(pid_of(run, "actor-0"))


def test_an_error_that_a_restart_cannot_fix_is_tried_twice(cli: Cli) -> None:
    """It is not one of ours: vLLM refuses the variable when the actor imports it."""
    words = (*SCRIPTED, "actor.engine=vllm", "actor.max_restarts=9")
    done = cli.run(*words, env={"VLLM_LOGGING_LEVEL": "NONSENSE"})
    assert done.returncode == 1, done.stderr
    assert "actor-0 failed twice in a row at its start: " in done.stderr.strip().splitlines()[-1]
    assert len(events_of(cli.runs()[-1], "actor_restarted")) == 2


def test_the_same_holds_for_a_learner_before_its_first_update(cli: Cli) -> None:
    """Torch refuses the variable when the learner imports it."""
    done = cli.run(*SCRIPTED, "learner.max_restarts=9", env={"TORCH_LOGS": "no_such_log"})
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: learner failed twice in a row at its start: ValueError")
    assert len(events_of(cli.runs()[-1], "learner_restarted")) == 2


def test_damaged_newest_checkpoint_is_skipped(cli: Cli) -> None:
    assert cli.run(*SCRIPTED).returncode == 0
    run = cli.runs()[-1]
    weights = run / f"checkpoints/step_{UPDATES}/model/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    done = cli.run(*SCRIPTED, f"policy_gradient.resume_from={run}")
    assert done.returncode == 0, done.stderr
    assert "skipped" in (run / "logs" / "learner.log").read_text()
    assert_nothing_lost(run)
