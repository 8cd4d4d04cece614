"""Runs with rewards files: functions that fail, resumed runs, replay, and the shipped parts for answers in tags."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import Cli, patience, read_jsonl
from tests.orchestrator.test_runs import SCRIPTED, events_of, metrics_of, steps_of

pytestmark = pytest.mark.slow
GROUP, EPISODES = 8, 16
SHORT = (
    *SCRIPTED,
    "policy_gradient.max_staleness=0",
    f"policy_gradient.episodes_per_update={EPISODES}",
    "policy_gradient.updates=4",
    "policy_gradient.eval_every=4",
    "policy_gradient.eval_limit=8",
    "policy_gradient.save_every=1",
)
FIRST = EPISODES + 8  # completions of the first update and the first validation
# A function that does not fail ALWAYS fails for the completions of the second update, after those that it has counted.
FILE = """
import os
import time
import uuid
from pathlib import Path

ARTIFACTS = Path(ARTIFACTS_PATH)
ALWAYS = ALWAYS_VALUE


def _broken(count=1):
    scored = ARTIFACTS / "scored"  # one file per completion, because several processes score
    scored.mkdir(exist_ok=True)
    for _ in range(count):
        (scored / uuid.uuid4().hex).touch()
    return ALWAYS or len(list(scored.iterdir())) > FIRST_VALUE

def good(item):
    return len(item.text) / 100

def raises(item):
    return 1 / (0 if _broken() else 1)

def hangs(items):
    if ALWAYS and len(items) > 1:  # once, for a group of an update: a validation has one completion per prompt
        try:
            os.close(os.open(ARTIFACTS / "hung", os.O_CREAT | os.O_EXCL))
            time.sleep(600)
        except FileExistsError:
            pass
    elif not ALWAYS and _broken(len(items)):
        time.sleep(600)
    return [1.0] * len(items)

def not_a_number(item):
    return float("nan") if _broken() else 1.0

def wrong_length(items):
    return [1.0] * (len(items) + 1 if _broken(len(items)) else len(items))
"""


def write_file(path: Path, artifacts: Path, always: bool) -> Path:
    text = FILE.replace("ARTIFACTS_PATH", repr(str(artifacts))).replace("ALWAYS_VALUE", str(always))
    path.write_text(text.replace("FIRST_VALUE", str(FIRST)))
    return path


def with_parts(file: Path, **weights: float) -> tuple[str, ...]:
    parts = ", ".join(f"{name}: {weight}" for name, weight in weights.items())
    return (f"policy_gradient.rewards_file={file}", f"policy_gradient.rewards={{{parts}}}")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def recorded(run: Path) -> str:
    """Names and hashes of the rewards files in the manifest, at the run's last start."""
    manifest = json.loads((run / "manifest.json").read_text())
    inputs = [manifest, *manifest.get("resumes", [])][-1]["inputs"]
    return str(inputs["rewards files"])


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("raises", r"completion 1 of 8: mine\.py line \d+: ZeroDivisionError: division by zero"),
        ("hangs", r"all 8 completions: no answer within [\d.]+ s \(policy_gradient\.rewards_timeout_s\)"),
        ("not_a_number", r"completion 1 of 8: returned nan, which is not finite"),
        ("wrong_length", r"all 8 completions: returned 9 values for 8 completions"),
    ],
)
def test_a_failing_function_stops_the_run(cli: Cli, tmp_path: Path, part: str, reason: str) -> None:
    """The message names part and item, the learner is not restarted, and the run continues from its checkpoint."""
    file = write_file(tmp_path / "mine.py", cli.artifacts, always=False)
    arguments = (*SHORT, *with_parts(file, good=1, **{part: 1}), f"policy_gradient.rewards_timeout_s={patience(2)}")
    done = cli.run(*arguments)
    (run,) = cli.runs()
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if f"policy_gradient.rewards.{part}" in line]
    assert len(lines) == 1, done.stderr
    assert re.search(rf"rewards\.{part} failed for item [\w-]+, {reason}.*rewards_on_error=zero$", lines[0]), lines
    assert "Traceback" not in done.stdout + done.stderr
    assert events_of(run, "learner_restarted") == []
    assert steps_of(run) == [1]
    old = sha256(file)
    file.write_text(file.read_text().replace("return ALWAYS or", "return False and"))
    resume = (*arguments, "policy_gradient.resume_from=latest")
    if part == "raises":
        refused = cli.run(*resume)
        assert refused.returncode == 2
        assert f'rewards files was "mine.py {old}", now "mine.py {sha256(file)}"' in refused.stderr
        assert recorded(run) == f"mine.py {old}"
        assert sha256(run / "rewards/mine.py") == old
    resumed = cli.run(*resume, "resume_force=true")
    assert resumed.returncode == 0, resumed.stderr
    assert cli.runs() == [run]
    assert steps_of(run) == [1, 2, 3, 4]
    assert {r[f"train/reward_{part}"] for r in metrics_of(run) if "step" in r} == {1.0}
    assert recorded(run) == f"mine.py {sha256(file)}"
    assert sha256(run / "rewards/mine.py") == sha256(file)


def test_failures_that_count_as_zero(cli: Cli, tmp_path: Path) -> None:
    file = write_file(tmp_path / "mine.py", cli.artifacts, always=True)
    bad = ("raises", "hangs", "not_a_number", "wrong_length")
    weights = {"good": 1.0, **dict.fromkeys(bad, 1.0)}
    limits = (f"policy_gradient.rewards_timeout_s={patience(3)}", "policy_gradient.rewards_on_error=zero")
    done = cli.run(*SHORT, *with_parts(file, **weights), *limits, "policy_gradient.updates=2")
    assert done.returncode == 0, done.stderr
    (run,) = cli.runs()
    assert (cli.artifacts / "hung").exists()
    steps = [r for r in metrics_of(run) if "step" in r]
    assert [r["rollout/reward_errors"] for r in steps] == [3 * EPISODES + GROUP, 3 * EPISODES]
    for part in ("raises", "not_a_number", "wrong_length"):
        assert {r[f"train/reward_{part}"] for r in steps} == {0.0}
    assert [r["train/reward_hangs"] for r in steps] == [1 - GROUP / EPISODES, 1.0]
    assert all(r["train/reward_good"] > 0 for r in steps)
    for r in steps:
        assert r["train/reward_mean"] == pytest.approx(r["train/reward_good"] + r["train/reward_hangs"])
    failures = events_of(run, "reward_failed")
    assert sorted(e["part"] for e in failures) == sorted(bad)
    assert all("failed for item" in e["reason"] for e in failures)
    assert events_of(run, "learner_restarted") == []


def test_a_resumed_run_uses_its_copy_and_a_recorded_update_is_replayed(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import random\ndef mine(item): return random.random()\n")
    arguments = (*SHORT, *with_parts(file, mine=1.0), "policy_gradient.record=true")
    assert cli.run(*arguments, "name=whole").returncode == 0
    assert cli.run(*arguments, "policy_gradient.updates=2", "name=cut").returncode == 0
    whole, cut = cli.runs()
    digest = sha256(file)
    file.unlink()
    resumed = cli.run("command=policy_gradient", f"policy_gradient.resume_from={cut}", "policy_gradient.updates=4")
    assert resumed.returncode == 0, resumed.stderr
    for run in (whole, cut):
        assert recorded(run) == f"mine.py {digest}"
        assert sha256(run / "rewards/mine.py") == digest
    steps = [[r for r in metrics_of(run) if "step" in r] for run in (whole, cut)]
    assert [r["train/reward_mine"] for r in steps[0]] == [r["train/reward_mine"] for r in steps[1]]
    replayed = cli.run("command=replay", f"run={cut}", "step=4")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    refused = cli.run(*arguments)
    assert refused.returncode == 2
    assert f"policy_gradient.rewards_file={file} cannot be read: No such file" in refused.stderr


TAGS = (
    *("preset=cpu_demo", "prompt.answer_format=tags", "prompt.answer_tag=cevap", "wandb.mode=off"),
    *("actor.max_model_len=224", "preprocess.source=jsonl", "preprocess.max_tokens=224"),
)
FINE_TUNING = (
    *("command=sft", "sft.epochs=2", "sft.min_tokens_per_update=600", "sft.lr=1e-3", "sft.warmup_updates=3"),
    *("sft.max_new_tokens=80", "sft.eval_limit=8", "sft.eval_every=1000", "sft.save_every=1000"),
)
TAG_REWARDS = (
    *("command=policy_gradient", "policy_gradient.model_id=run:latest:sft", "policy_gradient.max_new_tokens=80"),
    *("policy_gradient.updates=1", "policy_gradient.episodes_per_update=128", "policy_gradient.eval_limit=8"),
    "policy_gradient.rewards={exact_text: 2.0, tag_count: 1.0}",
    *("policy_gradient.tag_count.tags=[steps,cevap]", "policy_gradient.tag_count.trailing_cost=0.001"),
)


def in_tags(record: dict[str, object]) -> dict[str, str]:
    """A problem as an example of fine-tuning, with its steps and its answer in tags."""
    steps = str(record["answer"]).rpartition("\n")[0]
    response = f"<steps>\n{steps}\n</steps>\n<cevap>\n{record['gold']}\n</cevap>"
    return {"prompt": f"Question: {record['question']}\nAnswer:", "response": response}


def seed_rewards(text: str, gold: str) -> tuple[float, float]:
    """The rewards of seed S4 for a text, with the tags of this test: exact answer, and share of the tags."""
    answers = re.findall(r"<cevap>((?:(?!<cevap>).)*?)</cevap>", text, re.DOTALL)
    exact = float(bool(answers) and answers[-1].strip() == gold)
    tags = ("<steps>\n", "\n</steps>\n", "\n<cevap>\n", "\n</cevap>")
    share = sum(0.125 for tag in tags if len(text.split(tag)) == 2)
    if len(text.split(tags[2])) == 2:
        share -= 0.001 * len(text.rpartition("\n</cevap>\n")[2])
    if len(text.split(tags[3])) == 2:
        share -= 0.001 * (len(text.rpartition(tags[3])[2]) - 1)
    return exact, share


def test_answers_in_tags_with_the_rewards_of_a_seed(cli: Cli, tmp_path: Path) -> None:
    """A model that was taught the tags is scored as in seed S4: 2 for the exact answer, 0.125 for each tag."""
    assert cli.run("command=data", *TAGS, "preprocess.path=unused").returncode == 0
    examples = [in_tags(record) for record in read_jsonl(cli.artifacts / "chain_sum/train.jsonl")[:1000]]
    taught = tmp_path / "taught.jsonl"
    taught.write_text("".join(json.dumps(example) + "\n" for example in examples))
    for stage in (("command=preprocess",), FINE_TUNING, TAG_REWARDS):
        done = cli.run(*stage, *TAGS, f"preprocess.path={taught}")
        assert done.returncode == 0, done.stderr
    (run,) = (run for run in cli.runs() if run.name.endswith("policy_gradient"))
    rows = pq.read_table(run / "rollouts/step_1.parquet").to_pylist()
    assert len(rows) == 128
    gold = {record["id"]: str(record["gold"]) for record in read_jsonl(cli.artifacts / "chain_sum/train.jsonl")}
    found = [
        (0.0, 0.0) if row["finish_reason"] == "length" else seed_rewards(row["text"], gold[row["prompt_id"]])
        for row in rows
    ]
    assert len({share for _, share in found}) > 2
    assert {exact for exact, _ in found} == {0.0, 1.0}
    for row, (exact, share) in zip(rows, found, strict=True):
        assert row["reward"] == pytest.approx(2 * exact + share, abs=1e-6), row["text"]
    (step, *_) = metrics_of(run)
    assert step["train/reward_tag_count"] == pytest.approx(sum(share for _, share in found) / len(found), abs=1e-6)
