"""W&B: tables, histograms and settings of offline runs, and no secret, failure or delay reaches the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cli import load_config
from grpo_gsm8k.config import Config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.tracking import run_folder
from grpo_gsm8k.tracking.run_folder import RunFolder
from grpo_gsm8k.tracking.tracker import Tracker
from grpo_gsm8k.tracking.wandb_writer import check_wandb, wandb_run_id
from grpo_gsm8k.tracking.writers import open_writers
from tests.conftest import REPO, patience
from tests.tracking.test_tracker import Recorder, events, lines
from tests.tracking.wandb_log import items, wandb_records


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return run_folder.create(tmp_path, "demo")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


def configuration(mode: str) -> Config:
    return load_config(["command=policy_gradient", "preset=cpu_demo", f"wandb.mode={mode}"])


def test_online_without_a_key_is_refused_before_anything(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(run.path))
    file = run.path / "netrc"
    monkeypatch.setenv("NETRC", str(file))
    with pytest.raises(UserError, match=r"wandb\.mode=offline"):
        open_writers(configuration("online"), run)
    assert not (run.path / "wandb_run_id").exists()
    file.write_text("machine api.wandb.ai login user password key\n")
    file.chmod(0o600)
    check_wandb(configuration("online"))
    file.write_text("machine example.org login user password key\n")
    with pytest.raises(UserError):
        check_wandb(configuration("online"))
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    check_wandb(configuration("online"))


SESSION = """
import sys, time, json, socket, threading, os
from pathlib import Path
from cli import load_config
from grpo_gsm8k.terminal import console
from grpo_gsm8k.tracking import tracker, wandb_writer, writers
from grpo_gsm8k.tracking.run_folder import RunFolder
from tests.tracking.parquet_rows import write_completions
mode, folder, first, last = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

def serve(server):
    kept = []
    while True:
        kept.append(server.accept()[0])
        if mode == "error":
            threading.Thread(target=answer, args=(kept[-1],), daemon=True).start()

def answer(client):
    while client.recv(65536):
        client.sendall(b"HTTP/1.1 500 Internal Server Error\\r\\nContent-Length: 0\\r\\n\\r\\n")

if mode in ("hang", "error"):
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(server,), daemon=True).start()
    os.environ["WANDB_BASE_URL"] = f"http://127.0.0.1:{server.getsockname()[1]}"
    os.environ["WANDB_API_KEY"] = "canary-api-key-" + "x" * 40
    wandb_writer.WANDB_INIT_SECONDS = 2.0 if mode == "error" else 60.0
mode_of = {"kill": "offline", "hang": "online", "error": "online"}.get(mode, mode)
note = os.environ.get("CANARY_TOKEN", "")
config = load_config(["command=policy_gradient", "preset=cpu_demo", f"wandb.mode={mode_of}", "prompt.chat=true",
                      f"prompt.system={note}", "traces.base_url=https://user:canary-config@example.org"])
run = RunFolder(folder)
opened = writers.open_writers(config, run)
tracker = tracker.Tracker(run, opened.threads, 10, first, console.open_console(10))
write_completions(run.rollouts / "step_1.parquet")
write_completions(run.validation / f"step_{last}.parquet", 8)
begun = time.monotonic()
for step in range(first + 1, last + 1):
    tracker.step(step, {"train/loss": 1.0 / step})
tracker.validation(last, {"val/accuracy": 0.5})
print("stepped", time.monotonic() - begun, flush=True)
if mode == "kill":
    while not list(folder.glob("wandb/offline-run-*/*.wandb")):
        time.sleep(0.05)
    print("ready", flush=True)
    time.sleep(600)
if mode == "error":
    time.sleep(8)
tracker.close("done", 3.0 if mode == "hang" else 120.0)
print("closed", time.monotonic() - begun, opened.wandb_run_id, flush=True)
"""


def session(mode: str, run: RunFolder, first: int = 0, last: int = 3) -> list[str]:
    return [sys.executable, "-c", SESSION, mode, str(run.path), str(first), str(last)]


def in_session(mode: str, run: RunFolder, first: int = 0, last: int = 3) -> list[str]:
    environment = {**os.environ, "CANARY_TOKEN": "canary-environment", "HOME": "/proc/none", "XDG_DATA_HOME": ""}
    done = subprocess.run(
        session(mode, run, first, last),
        cwd=REPO,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines()


def assert_no_canary(run: RunFolder) -> None:
    checked = 0
    for path in run.path.rglob("*"):
        if path.is_file():
            assert b"canary-" not in path.read_bytes(), path
            checked += 1
    assert checked > 5


def test_offline_wandb_continues_the_same_run_and_holds_no_secret(run: RunFolder) -> None:
    first = in_session("offline", run)[-1].split()[-1]
    second = in_session("offline", run, first=3, last=5)[-1].split()[-1]
    assert first == second == (run.path / "wandb_run_id").read_text().strip()
    stores = sorted(run.path.glob("wandb/offline-run-*/*.wandb"))
    assert [store.name for store in stores] == [f"run-{first}.wandb"] * 2
    assert b"train/loss" in stores[0].read_bytes()
    assert b"val/version" in stores[0].read_bytes()
    assert_no_canary(run)
    assert [r["step"] for r in lines(run.metrics_jsonl) if "step" in r] == [1, 2, 3, 4, 5]


def test_off_makes_no_wandb_files(run: RunFolder) -> None:
    found = open_writers(configuration("off"), run)
    Tracker(run, found.threads, 10, 0, Recorder()).close("done")
    assert (found.threads, found.wandb_run_id) == ((), None)
    assert not list(run.path.glob("wandb*"))


def test_the_run_id_of_the_environment_is_that_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (run_folder.create(tmp_path, name) for name in ("a", "b"))
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    assert wandb_run_id(first) == "given"
    assert wandb_run_id(first) == "given"  # resumed
    with pytest.raises(UserError, match="WANDB_RUN_ID=given is the W&B run of an earlier run"):
        wandb_run_id(second)
    monkeypatch.delenv("WANDB_RUN_ID")
    assert wandb_run_id(first) == "given"
    assert wandb_run_id(second) != "given"


def test_a_folder_of_the_environment_is_made_and_used(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "new" / "folder"))
    in_session("offline", run)
    assert len(list(tmp_path.glob("new/folder/wandb/offline-run-*/*.wandb"))) == 1
    assert not list(run.path.glob("wandb/offline-run-*"))


def test_offline_files_hold_tables_histograms_and_best_values(run: RunFolder) -> None:
    """The session ran with a home that cannot be written, as in a container with another user."""
    in_session("offline", run)
    assert events(run, "wandb_problem") == []
    (store,) = run.path.glob("wandb/offline-run-*/*.wandb")
    records = list(wandb_records(store))
    (start,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    assert (start.run_group, start.job_type) == ("grpo", "policy_gradient")
    assert list(start.tags) == ["policy_gradient", "grpo", "chain_sum"]
    history = [items(r.history.item) for r in records if r.WhichOneof("record_type") == "history"]
    assert json.loads(history[0]["rollout/length_histogram._type"]) == "histogram"
    assert sum(json.loads(history[0]["rollout/reward_histogram.values"])) == 40
    tables = sorted(store.parent.glob("files/media/table/*/*.json"))
    rollouts, validation = (json.loads(path.read_text()) for path in tables)
    assert [row[rollouts["columns"].index("text")] for row in rollouts["data"]][:2] == ["completion 0", "completion 2"]
    assert (len(rollouts["data"]), len(validation["data"])) == (16, 8)
    best = [m.metric for m in records if m.WhichOneof("record_type") == "metric" and m.metric.summary.max]
    assert [metric.name for metric in best] == ["val/accuracy", "train/reward_mean"]
    updates = [items(r.summary.update) for r in records if r.WhichOneof("record_type") == "summary"]
    assert {name: value for update in updates for name, value in update.items()}["best_validation/accuracy"] == "0.5"
    assert [r for r in records if r.WhichOneof("record_type") == "stats"]  # system metrics
    assert [path for path in run.path.rglob("*") if "staging" in path.parts]  # not in HOME


@pytest.mark.slow
def test_hanging_wandb_blocks_neither_steps_nor_the_end(run: RunFolder) -> None:
    began = time.monotonic()
    out = in_session("hang", run)
    assert time.monotonic() - began < patience(45)  # 3 s for W&B, not its own 60, and start and exit
    assert float(next(line for line in out if line.startswith("stepped")).split()[1]) < patience(20)
    assert len(lines(run.metrics_jsonl)) == 4
    assert "did not finish within 3 s" in events(run, "wandb_problem")[0]["problem"]
    assert events(run, "wandb_dropped")[0]["records"] == 4
    assert_no_canary(run)


@pytest.mark.slow
def test_failing_wandb_becomes_an_offline_run(run: RunFolder) -> None:
    out = in_session("error", run)
    assert len([line for line in out if "wandb sync" in line]) == 1
    assert len(events(run, "wandb_problem")) == 1
    assert events(run, "wandb_dropped") == []
    (store,) = run.path.glob("wandb/offline-run-*/*.wandb")
    assert b"val/accuracy" in store.read_bytes()
    assert_no_canary(run)


@pytest.mark.slow
def test_killed_process_leaves_no_wandb_process(run: RunFolder) -> None:
    process = subprocess.Popen(session("kill", run), cwd=REPO, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any(line.startswith("ready") for line in process.stdout)
    service = psutil.Process(process.pid).children(recursive=True)
    assert any(child.name().startswith("wandb-core") for child in service)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(service, timeout=10)
    left = [child for child in alive if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert left == []
    assert len(lines(run.metrics_jsonl)) == 4
