"""Runs with a teacher, real processes and the real engine: exact scores, resume, a server, adapters, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from grpo_gsm8k.models import EMBEDDED_TINY
from tests.conftest import Cli, read_jsonl
from tests.learner.scoring_server import MODEL, Scorer, serving
from tests.orchestrator.test_runs import SCRIPTED, SYNC, assert_equal_runs, metrics_of

pytestmark = pytest.mark.slow
UPDATES = 4
STUDENT = ("policy_gradient=distill", "learner.lr=2e-3", "policy_gradient.record=true")


@pytest.fixture(scope="module")
def distilled(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the embedded model with one of random weights as its teacher: to come closer it unlearns."""
    cli = Cli(tmp_path_factory.mktemp("distilled") / "artifacts")
    teacher = f"policy_gradient.teacher.path={random_model}"
    done = cli.run(*SYNC, *STUDENT, f"policy_gradient.updates={UPDATES}", teacher)
    assert done.returncode == 0, done.stderr
    return cli.runs()[-1]


def steps(run: Path) -> list[dict[str, Any]]:
    return [r for r in read_jsonl(run / "metrics.jsonl") if "step" in r]


def prompt_ids(question: str, run: Path) -> list[int]:
    """The tokens of a prompt, by the template that the run has saved."""
    prompt = yaml.safe_load((run / "config.yaml").read_text())["prompt"]
    assert not prompt["chat"]
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_TINY)
    return list(tokenizer.encode(prompt["text"].replace("{question}", question)))


def test_the_divergence_is_that_of_the_recorded_rollouts(distilled: Path, random_model: Path) -> None:
    """Mean log ratio of engine's and teacher's probability over all tokens, in float64 by Hugging Face's model."""
    teacher = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float64, attn_implementation="eager")
    for step in steps(distilled)[:2]:
        ratios, means = [], []
        for row in pq.read_table(distilled / f"rollouts/step_{step['step']}.parquet").to_pylist():
            prompt = prompt_ids(row["question"], distilled)
            with torch.no_grad():
                logits = teacher(torch.tensor([prompt + row["tokens"]])).logits[0, len(prompt) - 1 : -1]
            scores = torch.log_softmax(logits, -1).gather(1, torch.tensor(row["tokens"])[:, None])[:, 0].numpy()
            ratios.append(np.array(row["logprobs"]) - scores)
            means.append(row["advantage"])
        assert step["distill/reverse_kl"] == pytest.approx(np.concatenate(ratios).mean(), rel=1e-5)
        assert means == pytest.approx([-r.mean() for r in ratios], rel=1e-4)


def test_the_student_comes_closer(distilled: Path) -> None:
    divergences = [step["distill/reverse_kl"] for step in steps(distilled)]
    assert len(divergences) == UPDATES
    assert divergences[-1] < 0.95 * divergences[0]
    assert all(step["time/teacher_s"] > 0 for step in steps(distilled))


def test_a_resumed_run_equals_an_uninterrupted_one(distilled: Path, cli: Cli) -> None:
    run = cli.artifacts / "runs" / distilled.name
    shutil.copytree(distilled, run)
    shutil.rmtree(run / f"checkpoints/step_{UPDATES}")
    other = cli.run(
        "command=policy_gradient", "policy_gradient.resume_from=latest", "policy_gradient.teacher.path=embedded:tiny"
    )
    assert other.returncode == 2
    assert "policy_gradient.teacher.path was" in other.stderr.strip().splitlines()[-1]
    done = cli.run("command=policy_gradient", "policy_gradient.resume_from=latest")
    assert done.returncode == 0, done.stderr
    assert_equal_runs(distilled, run, UPDATES)


def test_a_replayed_update_has_the_recorded_numbers(distilled: Path) -> None:
    done = Cli(distilled.parent.parent).run("command=replay", f"run={distilled}", f"step={UPDATES}")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[-2:]]
    assert [(row[0], float(row[3])) for row in rows] == [("loss", 0.0), ("grad_norm", 0.0)]


def test_a_server_teaches_what_a_copy_in_the_process_does(distilled: Path, random_model: Path, cli: Cli) -> None:
    with serving(Scorer(random_model)) as scorer:
        server = (f"policy_gradient.teacher.base_url={scorer.url}", f"policy_gradient.teacher.model={MODEL}")
        done = cli.run(*SYNC, *STUDENT, *server, "policy_gradient.updates=1")
    assert done.returncode == 0, done.stderr
    found, expected = (metrics_of(run)[0] for run in (cli.runs()[-1], distilled))
    for name in ("distill/reverse_kl", "train/loss", "train/grad_norm", "train/advantage_std"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4), name
    assert all(isinstance(body["prompt"], list) for body in scorer.asked[-64:])


def test_an_adapter_on_two_ranks_with_a_run_as_its_teacher(distilled: Path, cli: Cli) -> None:
    """The teacher is the run's best checkpoint, the task's reward counts, too."""
    made = cli.artifacts / "runs" / distilled.name
    shutil.copytree(distilled, made)
    mixed = (f"policy_gradient.teacher.path=run:{distilled.name}", "policy_gradient.teacher.task_weight=0.5")
    student = ("policy_gradient=distill", "learner=lora", "learner.ranks=2", "policy_gradient.updates=2")
    done = cli.run(*SYNC, *student, *mixed)
    assert done.returncode == 0, done.stderr
    (run,) = (folder for folder in cli.runs() if folder != made)
    saved = yaml.safe_load((run / "config.yaml").read_text())["policy_gradient"]["teacher"]["path"]
    assert Path(saved).parent.parent == made / "checkpoints"
    assert [step["step"] for step in steps(run)] == [1, 2]
    assert all(np.isfinite(step["distill/reverse_kl"]) for step in steps(run))


def test_a_missing_or_foreign_teacher_is_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    shutil.copytree(EMBEDDED_TINY, foreign)
    file = foreign / "tokenizer.json"
    values = json.loads(file.read_text())
    vocabulary = values["model"]["vocab"]
    vocabulary["1"], vocabulary["2"] = vocabulary["2"], vocabulary["1"]
    file.write_text(json.dumps(values))
    for words, expected in (
        ((), "policy_gradient.advantage=distill needs a teacher"),
        (("policy_gradient.teacher.path=no/such/model",), "policy_gradient.teacher.path=no/such/model is neither"),
        ((f"policy_gradient.teacher.path={foreign}",), "has another vocabulary"),
    ):
        done = cli.run(*SCRIPTED, "policy_gradient=distill", *words)
        assert done.returncode == 2, done.stderr
        assert expected in done.stderr.strip().splitlines()[-1]
