"""Rewards files are checked, copied and hashed; a run uses its copies, also in a replaced learner and a resume."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cli import load_config
from grpo_gsm8k.config import Config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.grading.answers import AnswerFormat, Locale, grade
from grpo_gsm8k.orchestrator import resume
from grpo_gsm8k.orchestrator.resume import ReopenedRun
from grpo_gsm8k.orchestrator.rewards_files import read_rewards
from grpo_gsm8k.tracking import manifest, run_folder
from grpo_gsm8k.tracking.run_folder import RunFolder
from tests.conftest import Cli, read_jsonl
from tests.orchestrator.test_runs import events_of, finish, pid_of, run_of, steps_of, wait_for

FILE = """
def good(item):
    return item.tokens / 10 + item.grade.well_formed

def rank(items):
    lengths = sorted(item.tokens for item in items)
    return [lengths.index(item.tokens) for item in items]
"""
RUN = (
    *("command=policy_gradient", "preset=cpu_demo", "wandb.mode=off", "actor.engine=scripted"),
    *("policy_gradient.episodes_per_update=16", "policy_gradient.eval_limit=8", "policy_gradient.updates=3"),
    *("policy_gradient.save_every=1", "policy_gradient.max_staleness=0", "learner.deterministic=true"),
    "policy_gradient.rewards={correct: 1.0, good: -0.5, rank: 0.0}",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "benim_ödülüm.py"
    path.write_text(FILE, encoding="utf-8")
    return path


def config(*words: str, rewards: str = "{good: 1}") -> Config:
    return load_config(["command=policy_gradient", "preset=cpu_demo", f"policy_gradient.rewards={rewards}", *words])


def with_files(*paths: Path) -> str:
    quoted = ",".join(f'"{path}"' for path in paths)
    return f"policy_gradient.rewards_file=[{quoted}]"


def made_run(artifacts: Path) -> RunFolder:
    run = run_folder.create(artifacts, "a_run")
    manifest.write_config(run, {"command": "policy_gradient"})
    return run


def test_the_files_are_copied_and_hashed(file: Path, tmp_path: Path) -> None:
    run = made_run(tmp_path)
    found = read_rewards(config(with_files(file)), None)
    found.copy_to(run)
    assert (run.rewards / file.name).read_bytes() == file.read_bytes()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.fingerprints == {"rewards files": f"{file.name} {digest}"}
    file.unlink()
    assert read_rewards(config(with_files(file)), run) == found  # a resumed run needs the copy alone
    with pytest.raises(UserError, match=r"rewards_file=.*cannot be read: No such file or directory: name an existing"):
        read_rewards(config(with_files(file)), None)


def test_without_a_file_only_the_weights_are_checked(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    read_rewards(config(rewards="{tag_count: 1, soft_overlong: 1}"), None).copy_to(run)
    assert not run.rewards.exists()
    with pytest.raises(UserError, match=r"rewards\.good: unknown reward part; known: correct, exact_text, format"):
        read_rewards(config(), None)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.txt",), r"a\.txt: the name does not end in \.py"),
        (("one/a.py", "two/a.py"), r"two files are called a\.py: rename one"),
        (("one",), r"one: the name does not end in \.py"),
        (("folder.py",), r"folder\.py cannot be read: Is a directory"),
    ],
)
def test_paths_that_are_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name == "folder.py":
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_text("def good(item): return 1\n")
    with pytest.raises(UserError, match=message):
        read_rewards(config(with_files(*(tmp_path / name for name in names))), None)


def test_another_content_is_refused_on_resume_unless_forced(file: Path, tmp_path: Path) -> None:
    run = made_run(tmp_path)
    settings = config(with_files(file))
    before = read_rewards(settings, None)
    manifest.write_manifest(run, {}, inputs=before.fingerprints)
    reopened = ReopenedRun(run, None, ())
    assert resume.changed_inputs(reopened, settings, read_rewards(settings, run).fingerprints) == ()
    other = tmp_path / "other.py"
    other.write_text(FILE)
    file.write_text(FILE + "\n# edited\n")
    for changed in (settings, config(with_files(other))):
        now = read_rewards(changed, run).fingerprints
        with pytest.raises(UserError, match=r"rewards files was \"benim.* [0-9a-f]{64}\", now \".* [0-9a-f]{64}\""):
            resume.changed_inputs(reopened, changed, now)
        forced = changed.model_copy(update={"resume_force": True})
        (change,) = resume.changed_inputs(reopened, forced, now)
        assert (change.old, change.new) == (before.fingerprints["rewards files"], now["rewards files"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("policy_gradient.rewards_on_error=zero",),
            "rewards_on_error has no effect without policy_g",
        ),
        (
            ("policy_gradient.rewards_timeout_s=3",),
            "rewards_timeout_s has no effect without policy_g",
        ),
        (("policy_gradient.tag_count.tags=[a,b]",), "tag_count has no effect without a weight"),
        (("policy_gradient.tag_count.tags=[a,b,c]",), "policy_gradient.tag_count.tags"),
        (("policy_gradient.tag_count.tags=[a,'<b>']",), "policy_gradient.tag_count.tags.1"),
        (("policy_gradient.overlong=penalty", "+policy_gradient.rewards.soft_overlong=1"), "are the same penalty"),
    ],
)
def test_settings_without_effect_are_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(["command=policy_gradient", "preset=cpu_demo", *words])


@pytest.mark.slow
def test_a_run_records_the_parts_and_two_runs_are_equal(cli: Cli, file: Path) -> None:
    for _ in range(2):
        done = cli.run(*RUN, with_files(file))
        assert done.returncode == 0, done.stderr
    one, other = cli.runs()
    assert not list((one / "rewards").glob("__pycache__"))
    assert "rewards files" in json.loads((one / "manifest.json").read_text())["inputs"]
    for step in (1, 2, 3):
        rows = pq.read_table(one / "rollouts" / f"step_{step}.parquet").to_pylist()
        assert rows == pq.read_table(other / "rollouts" / f"step_{step}.parquet").to_pylist()
        for row in rows:
            graded = grade(row["text"], row["gold"], AnswerFormat.HASH, Locale.EN)
            assert row["reward_good"] == len(row["tokens"]) / 10 + graded.well_formed
            assert row["reward"] == pytest.approx(row["reward_correct"] - 0.5 * row["reward_good"])
        (record,) = (r for r in read_jsonl(one / "metrics.jsonl") if r.get("step") == step)
        assert record["train/reward_good"] == pytest.approx(sum(row["reward_good"] for row in rows) / len(rows))
        assert "rollout/reward_errors" not in record


def interrupted(cli: Cli, file: Path, stop: Callable[[Path], None]) -> Path:
    process = cli.start(*RUN, "policy_gradient.updates=40", with_files(file))
    run = run_of(cli, process)
    wait_for(process, lambda: 2 in steps_of(run))
    stop(run)
    process.send_signal(signal.SIGTERM)
    finish(process, 128 + signal.SIGTERM)
    return run


@pytest.mark.slow
def test_the_run_uses_its_copy_and_a_resumed_one_compares(cli: Cli, file: Path) -> None:
    """After an edit of the original, a replaced learner still computes the old values; a resume is refused."""

    def edit_and_kill(run: Path) -> None:
        file.write_text(FILE.replace("/ 10", "/ 1000"), encoding="utf-8")
        os.kill(pid_of(run, "learner"), signal.SIGKILL)
        before = len(steps_of(run))
        while not events_of(run, "learner_restarted") or len(steps_of(run)) < before + 2:
            time.sleep(0.05)

    run = interrupted(cli, file, edit_and_kill)
    assert events_of(run, "learner_restarted")
    last = max(steps_of(run))
    for step in range(1, last + 1):
        for row in pq.read_table(run / "rollouts" / f"step_{step}.parquet").to_pylist():
            assert row["reward_good"] >= len(row["tokens"]) / 10
    resume_words = (*RUN, with_files(file), "policy_gradient.resume_from=latest", f"policy_gradient.updates={last + 1}")
    done = cli.run(*resume_words)
    assert done.returncode == 2
    assert "rewards files was" in done.stderr.splitlines()[-1]
    done = cli.run(*resume_words, "resume_force=true")
    assert done.returncode == 0, done.stderr
    assert [e["key"] for e in events_of(run, "config_changed")][-1] == "rewards files"
    for row in pq.read_table(run / "rollouts" / f"step_{last + 1}.parquet").to_pylist():
        assert row["reward_good"] % 1 == pytest.approx(len(row["tokens"]) / 1000)
    file.unlink()
    done = cli.run(*resume_words[:-1], f"policy_gradient.updates={last + 2}")
    assert done.returncode == 0, done.stderr
