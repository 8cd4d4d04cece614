"""The jobs of a sweep: Hydra's syntax, their order, names and folder; anything invalid is refused before the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from grpo_gsm8k.command_line.loading import load_config
from grpo_gsm8k.command_line.sweep_plan import Job, plan_sweep, split_jobs
from grpo_gsm8k.errors import UserError

PG = ["command=policy_gradient", "preset=cpu_demo"]
LONG = "a" * 80


def titles(*words: str) -> list[str]:
    return [job.title for job in split_jobs(words)]


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("seed=3,1,2", ["3", "1", "2"]),
        ("seed=3, 1", ["3", "1"]),
        ("seed=choice(3,1)", ["3", "1"]),
        ("seed=range(1,4)", ["1", "2", "3"]),
        ("seed=range(3)", ["0", "1", "2"]),
        ("seed=range(0,9,4)", ["0", "4", "8"]),
        ("seed=sort(3,1,2)", ["1", "2", "3"]),
        ("learner.lr=1e-5,2e-5", ["1e-5", "2e-5"]),
        ("name=1e3,007", ["1e3", "007"]),
        ("prompt.text='a, {question}','b {question}'", ["'a, {question}'", "'b {question}'"]),
        ('name="a","b"', ['"a"', '"b"']),
        ("data.stop=[a,b],[c]", ["[a,b]", "[c]"]),
        ("policy_gradient.rewards={correct: 1},{correct: 2}", ["{correct:1}", "{correct:2}"]),
        ("policy_gradient=glob(gspo*)", ["gspo", "gspo_token"]),
        ("+policy_gradient.rewards.length=0.1,0.2", ["0.1", "0.2"]),
    ],
)
def test_values(word: str, values: list[str]) -> None:
    key = word.partition("=")[0]
    assert titles(word) == [f"{key}={value}" for value in values]


def test_a_quoted_comma_is_not_a_sweep() -> None:
    assert titles("prompt.text='a, {question}'") == ["no swept values"]
    assert titles('data.stop=["a, b"]') == ["no swept values"]


def test_the_last_key_varies_fastest_and_the_last_word_counts() -> None:
    assert titles("seed=0,1", "policy_gradient=grpo,rloo") == [
        f"seed={seed} policy_gradient={method}" for seed in (0, 1) for method in ("grpo", "rloo")
    ]
    assert split_jobs(["seed=0,1", "seed=5"]) == [Job((), ("seed=5",))]
    assert titles("seed=5", "seed=0,1") == ["seed=0", "seed=1"]


def test_words_names_and_folder(tmp_path: Path) -> None:
    plan = plan_sweep([*PG, "seed=0,1", "learner.lr=1e-5,2e-5", f"artifacts={tmp_path}"], "20260101-000000")
    assert plan.folder == tmp_path / "runs" / "sweeps" / "20260101-000000"
    assert plan.jobs[1] == Job(
        ("seed=0", "learner.lr=2e-5"),
        (*PG, "seed=0", "learner.lr=2e-5", f"artifacts={tmp_path}", "sweep=20260101-000000", "name=seed_0_lr_2e-5"),
    )
    assert [(config.seed, config.learner.lr) for config in plan.configs] == [(0, 1e-5), (0, 2e-5), (1, 1e-5), (1, 2e-5)]
    names = "seed_0_lr_1e-5 seed_0_lr_2e-5 seed_1_lr_1e-5 seed_1_lr_2e-5"
    assert [config.name for config in plan.configs] == names.split()
    assert list(tmp_path.iterdir()) == []


def test_stages_of_pipelines_have_different_names() -> None:
    jobs = plan_sweep(["command=pipeline", "preset=cpu_demo", "seed=0,1"], "s").jobs
    shared = [word for word in jobs[1].words if not word.startswith("command=")]
    assert [load_config([*shared, f"command={name}"]).name for name in ("sft", "eval")] == ["seed_1_sft", "seed_1_eval"]


def test_given_names_stay() -> None:
    plan = plan_sweep([*PG, "seed=0,1", "name=mine", "sweep=first"], "unused")
    assert [(config.name, config.sweep) for config in plan.configs] == [("mine", "first")] * 2


@pytest.mark.parametrize(
    "word",
    [f"wandb.group={LONG}x,{LONG}y", "policy_gradient.stop=[a],['a']", "wandb.group=a/b,a+b,c"],
)
def test_names_differ_although_they_are_shortened(word: str) -> None:
    names = [config.name for config in plan_sweep([*PG, word], "s").configs]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 64 for name in names)


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["seed=0,x"], r"job 1 of the sweep \(seed=x\): seed: Input should be a valid integer"),
        (["seed=0,0"], "seed=0,0: a value is given twice"),
        (["seed=range(3,3)"], "no values"),
        (["policy_gradient=glob(zz*)"], "no values"),
        (["policy_gradient=grpo,glpo"], "job 1 .*policy_gradient=glpo does not exist"),
        (["seed=interval(0,1)"], r"use range\(start,stop,step\)"),
        (["seed=shuffle(1,2)"], "another order each time"),
        (["seed=shuffle(range(3))"], "another order each time"),
        (["seed=0,"], "cannot be parsed"),
        (["sweep=a,b"], "a sweep has one folder"),
        (["artifacts=/tmp/a,/tmp/b"], "a sweep has one folder"),
        (["sweep=../x"], "sweep"),
        (["seed=0,1", "policy_gradient.resume_from=latest"], "a sweep starts new runs"),
        (["policy_gradient.resume_from=a,b"], "a sweep starts new runs"),
        (["seed=0,1", "hydra/launcher=submitit_slurm"], "docs/command_line.md"),
        (["seed=0,1", "preset=null"], "give preset one name"),
        (["name=choice(1e3,2e3)"], "plain list: name=a,b,c"),
    ],
)
def test_refused(words: list[str], needle: str) -> None:
    with pytest.raises(UserError, match=needle):
        plan_sweep([*PG, *words], "s")
