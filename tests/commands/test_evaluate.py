"""Complete evaluations with the real engine: every question once, equal for any number of shards, resume."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Cli, read_jsonl

pytestmark = pytest.mark.slow
EVAL = (
    "command=eval",
    "preset=cpu_demo",
    "data.train_size=64",
    "data.val_size=16",
    "data.test_size=48",
    "actor.max_model_len=400",
    "eval.prompting=[zero_shot,one_shot]",
)
SAMPLED = (*EVAL, "eval.temperatures=[0.0,0.7]", "eval.samples=3")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("eval") / "artifacts")


@pytest.fixture(scope="module")
def whole(prepared: Cli) -> Path:
    done = prepared.run(*SAMPLED)
    assert done.returncode == 0, done.stderr
    assert "zero_shot" in done.stdout
    return prepared.runs()[-1]


def test_every_question_is_answered_once(whole: Path) -> None:
    lines = read_jsonl(whole / "predictions.jsonl")
    keys = [(r["prompting"], r["temperature"], r["item_id"], r["sample"]) for r in lines]
    assert len(keys) == len(set(keys)) == 2 * 48 * (1 + 3)
    assert keys == sorted(keys, key=lambda k: (k[0] != "zero_shot", k[2], k[1], k[3]))
    prompts = {(r["prompting"], r["item_id"]): str(r["prompt"]) for r in read_jsonl(whole / "prompts.jsonl")}
    assert len(prompts) == 2 * 48
    questions = {str(r["question"]) for r in lines}
    for (prompting, item), prompt in prompts.items():
        asked = next(str(r["question"]) for r in lines if r["item_id"] == item)
        assert asked in prompt
        assert prompt.count("Question:") == (2 if prompting == "one_shot" else 1)
        assert sum(q in prompt for q in questions) == 1  # the worked example is not an evaluated question
    summary = json.loads((whole / "summary.json").read_text())
    assert [(r["prompting"], r["temperature"], r["samples"]) for r in summary["results"]] == [
        ("zero_shot", 0.0, 1),
        ("zero_shot", 0.7, 3),
        ("one_shot", 0.0, 1),
        ("one_shot", 0.7, 3),
    ]
    for result in summary["results"]:
        assert result["ci_low"] <= result["accuracy"] <= result["ci_high"]
        errors = sum(result[f"{kind}_frac"] for kind in ("truncated", "format_error", "logic_error"))
        assert errors + result["accuracy"] == pytest.approx(1)


def test_two_shards_give_the_same_bytes_in_greedy(prepared: Cli, whole: Path) -> None:
    done = prepared.run(*EVAL, "eval.num_shards=2")
    assert done.returncode == 0, done.stderr
    lines = (prepared.runs()[-1] / "predictions.jsonl").read_text().splitlines()
    greedy = [line for line in (whole / "predictions.jsonl").read_text().splitlines() if '"temperature": 0.0' in line]
    assert [_without_logprob(line) for line in lines] == [_without_logprob(line) for line in greedy]


def _without_logprob(line: str) -> dict[str, object]:
    """Return a prediction without its log-probability, whose last bits depend on the other requests in the batch."""
    return {key: value for key, value in json.loads(line).items() if key != "mean_logprob"}


def test_killed_and_resumed(prepared: Cli, whole: Path) -> None:
    before = len(prepared.runs())
    process = prepared.start(*SAMPLED)
    while not (len(prepared.runs()) > before and (prepared.runs()[-1] / "predictions.jsonl").exists()):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    run = prepared.runs()[-1]
    while not (run / "predictions.jsonl").read_text():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < len((run / "predictions.jsonl").read_text().splitlines()) < 2 * 48 * 4
    done = prepared.run(*SAMPLED, "eval.resume_from=latest")
    assert done.returncode == 0, done.stderr
    again, once = read_jsonl(run / "predictions.jsonl"), read_jsonl(whole / "predictions.jsonl")
    assert [r["text"] for r in again if r["temperature"] == 0] == [r["text"] for r in once if r["temperature"] == 0]
    assert len(again) == len(once)


def test_two_models_are_compared_on_the_same_problems(prepared: Cli) -> None:
    from grpo_gsm8k.models import EMBEDDED_TINY

    done = prepared.run(*EVAL, "eval.prompting=[zero_shot]", f"eval.model_path=[embedded:tiny,{EMBEDDED_TINY}]")
    assert done.returncode == 0, done.stderr
    summary = json.loads((prepared.runs()[-1] / "summary.json").read_text())
    (comparison,) = summary["comparisons"]
    assert comparison["difference"] == 0  # both are the same model
    assert comparison["verdict"] == "noise"


@pytest.mark.parametrize(
    ("override", "needle"),
    [
        ("eval.max_new_tokens=390", "actor.max_model_len"),
        ("eval.shots=100", "eval.shots=100"),
        ("eval.model_path=[embedded:tiny,embedded:tiny]", "eval.model_path"),
        ("eval.temperatures=[-1.0]", "eval.temperatures.0: Input should be greater than or equal to 0"),
        ("eval.model_path=run:nothing", "run"),
    ],
)
def test_refused(prepared: Cli, override: str, needle: str) -> None:
    done = prepared.run(*EVAL, "eval.prompting=[few_shot]", "actor.max_model_len=512", "eval.shots=1", override)
    assert done.returncode == 2, done.stderr
    assert needle in done.stderr.strip().splitlines()[-1]
