"""Runs with a rewards file: good functions, and functions that raise, hang, or return NaN or the wrong length."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.conftest import Cli, read_jsonl

pytestmark = pytest.mark.slow
FILE = """
import os, time

def good(item):
    return item.tokens / 100

def share(items):
    return [1 / len(items)] * len(items)

def raises(item):
    raise ValueError(f"no rule for {item.question[:5]}")

def hangs(item):
    time.sleep(600)

def not_a_number(item):
    return float("nan")

def short_list(items):
    return [1.0] * (len(items) - 1)

def keys(item):
    return float("SECRET_API_KEY" in os.environ)
"""
SHORT = (
    *("command=policy_gradient", "preset=cpu_demo", "actor.engine=scripted", "wandb.mode=off"),
    *("policy_gradient.episodes_per_update=16", "policy_gradient.updates=2", "policy_gradient.eval_limit=8"),
    *("policy_gradient.save_every=1", "policy_gradient.max_staleness=0"),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_rewards.py"
    path.write_text(FILE)
    return path


def weighted(file: Path, **weights: float) -> list[str]:
    inner = ", ".join(f"{name}: {weight}" for name, weight in weights.items())
    return [f"policy_gradient.rewards_file={file}", f"policy_gradient.rewards={{{inner}}}"]


def test_good_functions_are_weighed_recorded_and_kept(cli: Cli, file: Path) -> None:
    parts = weighted(file, correct=1.0, good=-0.5, share=2.0, keys=1.0)
    done = cli.run(*SHORT, *parts, env={"SECRET_API_KEY": "x"})
    assert done.returncode == 0, done.stderr
    (run,) = cli.runs()
    for record in (r for r in read_jsonl(run / "metrics.jsonl") if "step" in r):
        values = {name: float(str(record[f"train/reward_{name}"])) for name in ("correct", "good", "share", "keys")}
        assert (values["share"], values["keys"]) == (1 / 8, 0.0)
        total = values["correct"] - 0.5 * values["good"] + 2 * values["share"]
        assert float(str(record["train/reward_mean"])) == pytest.approx(total)
    assert (run / "rewards" / file.name).read_text() == FILE
    assert hashlib.sha256(FILE.encode()).hexdigest() in (run / "manifest.json").read_text()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "ValueError: no rule for"),
        ("hangs", "no answer within 2 s"),
        ("not_a_number", "nan"),
        ("short_list", "7 values for 8"),
    ],
)
def test_a_failing_function_stops_the_run_or_counts_as_zero(cli: Cli, file: Path, name: str, reason: str) -> None:
    settings = [*SHORT, *weighted(file, correct=1.0, **{name: 1.0}), "policy_gradient.rewards_timeout_s=2"]
    if name == "short_list":
        settings.append("policy_gradient.eval_limit=1")
    stopped = cli.run(*settings)
    assert stopped.returncode == 2, stopped.stderr
    last = stopped.stderr.strip().splitlines()[-1]
    assert f"policy_gradient.rewards.{name} failed for item " in last
    assert reason in last
    (run,) = cli.runs()
    assert not [e for e in read_jsonl(run / "events.jsonl") if e["kind"] == "learner_restarted"]
    if name == "hangs":
        return  # counted as 0, each of its calls takes the whole time limit
    assert cli.run(*settings, "policy_gradient.rewards_on_error=zero").returncode == 0
    records = [r for r in read_jsonl(cli.runs()[-1] / "metrics.jsonl") if "step" in r]
    assert [record["rollout/reward_errors"] for record in records] == [16.0, 16.0]
    assert [record[f"train/reward_{name}"] for record in records] == [0.0, 0.0]
    assert [e["part"] for e in read_jsonl(cli.runs()[-1] / "events.jsonl") if e["kind"] == "reward_failed"] == [name]


def test_a_resume_uses_the_copy_and_refuses_a_changed_file(cli: Cli, file: Path) -> None:
    assert cli.run(*SHORT, *weighted(file, correct=1.0, good=0.5)).returncode == 0
    (run,) = cli.runs()
    longer = ("command=policy_gradient", "policy_gradient.updates=3", "policy_gradient.resume_from=latest")
    file.write_text(FILE + "\n# changed\n")
    refused = cli.run(*longer)
    assert refused.returncode == 2
    assert hashlib.sha256(FILE.encode()).hexdigest()[:8] in refused.stderr.splitlines()[-1]
    file.unlink()
    assert cli.run(*longer).returncode == 0
    assert [r["step"] for r in read_jsonl(run / "metrics.jsonl") if "step" in r] == [1, 2, 3]


def test_the_tags_of_s4(cli: Cli) -> None:
    """A model that never writes tags earns nothing for them, and no answer is readable."""
    done = cli.run(
        *SHORT,
        *("prompt.answer_format=tags", "prompt.answer_tag=cevap"),
        "policy_gradient.rewards={correct: 2.0, tag_count: 1.0, wrong: -1.0}",
        "policy_gradient.tag_count.tags=[matematik,cevap]",
    )
    assert done.returncode == 0, done.stderr
    record = next(r for r in read_jsonl(cli.runs()[0] / "metrics.jsonl") if "step" in r)
    assert [record[f"train/reward_{name}"] for name in ("correct", "tag_count", "wrong", "mean")] == [0, 0, 1, -1]
    summary = json.loads((cli.runs()[0] / "training_stats.json").read_text())
    assert summary
