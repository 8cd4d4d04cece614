"""The evaluated problems of a run and of its resume."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from cli import load_config
from grpo_gsm8k.config import Config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.evaluation.accuracy import _write_prompts
from grpo_gsm8k.evaluation.chosen_items import ITEMS, chosen, save
from grpo_gsm8k.evaluation.predictions import FILE
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.tracking import manifest, run_folder
from tests.evaluation.test_matrix import question

PROBLEMS = [Problem(f"q{i}", f"{i}?", f"#### {i}", str(i)) for i in range(40)]


def config(tmp_path: Path, *more: str) -> Config:
    return load_config(["command=eval", "preset=cpu_demo", f"artifacts={tmp_path}", "eval.limit=random:5", *more])


def started(tmp_path: Path) -> run_folder.RunFolder:
    run = run_folder.create(tmp_path, "eval")
    manifest.write_config(run, config(tmp_path).model_dump(mode="json"))
    save(run, chosen(config(tmp_path), PROBLEMS))
    (run.path / FILE).touch()
    return run


def test_a_resumed_run_evaluates_the_saved_problems(tmp_path: Path) -> None:
    run = started(tmp_path)
    ids = json.loads((run.path / ITEMS).read_text())["item_ids"]
    assert ids == [problem.id for problem in chosen(config(tmp_path), PROBLEMS)]
    more = [*random.Random(0).sample(PROBLEMS, 40), *(Problem(f"n{i}", "?", "#### 1", "1") for i in range(40))]
    assert [problem.id for problem in chosen(config(tmp_path), more)] != ids  # a new run draws from the new file
    for spec in ("latest", str(run.path)):
        assert [p.id for p in chosen(config(tmp_path, f"eval.resume_from={spec}"), more)] == ids


def test_a_problem_that_is_gone_stops_the_resume(tmp_path: Path) -> None:
    run = started(tmp_path)
    gone = chosen(config(tmp_path), PROBLEMS)[2]
    left = [problem for problem in PROBLEMS if problem != gone]
    with pytest.raises(UserError, match=rf"1 problems of .*{run.path.name}.* first {gone.id}: restore") as error:
        chosen(config(tmp_path, "eval.resume_from=latest"), left)
    assert "\n" not in str(error.value)


def test_two_runs_of_one_seed_have_the_same_problems(tmp_path: Path) -> None:
    first = chosen(config(tmp_path), PROBLEMS)
    assert chosen(config(tmp_path, "eval.prompting=[one_shot]", "model.path=another"), PROBLEMS[::-1]) == first
    assert chosen(config(tmp_path, "seed=1"), PROBLEMS) != first


def test_a_resume_with_other_prompts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    _write_prompts(path, [question(0, 1, 0)])
    _write_prompts(path, [question(0, 1, 0)])
    with pytest.raises(UserError, match=r"eval\.examples_file or prompt no longer give the prompts in"):
        _write_prompts(path, [question(0, 2, 0)])
