"""Selection of tasks by name and by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import load_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.evaluation.harness import tiny_sums
from grpo_gsm8k.evaluation.harness.tasks import TaskList, task_list, task_manager, wants_gsm8k


def chosen(suites: str, *more: str) -> tuple[bool, TaskList]:
    config = load_config(["command=eval", f"eval.eval_suites={suites}", *more]).eval
    return wants_gsm8k(config), task_list(config)


SEVEN = ("hendrycks_math500", "mmlu", "arc_challenge", "hellaswag", "winogrande", "truthfulqa_mc2", "wikitext")


@pytest.mark.parametrize(
    ("suites", "gsm8k", "names"),
    [
        ("gsm8k", True, ()),
        ("lm_eval", False, SEVEN),
        ("all", True, SEVEN),
        ("mmlu", False, ("mmlu",)),
        ("[gsm8k,mmlu,piqa]", True, ("mmlu", "piqa")),
        ("[lm_eval,mmlu]", False, SEVEN),
    ],
)
def test_suites_stand_for_tasks(suites: str, gsm8k: bool, names: tuple[str, ...]) -> None:
    assert chosen(suites) == (gsm8k, TaskList(names, ()))


def test_a_file_is_a_task(tasks: Path) -> None:
    files = f"[{tasks}/sums_choice.yaml,{tasks}/sums_generate.yaml]"
    _, found = chosen("lm_eval", f"eval.lm_eval_tasks={files}")
    assert found == TaskList(("sums_choice", "sums_generate"), (tasks.resolve(),))
    assert {"sums_choice", "sums_generate"} <= set(task_manager(found).all_tasks)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        chosen(str(tmp_path / "none.yaml"))
    (tmp_path / "empty.yaml").write_text("output_type: multiple_choice\n")
    with pytest.raises(UserError, match="has no line `task: NAME`"):
        chosen(str(tmp_path / "empty.yaml"))


@pytest.mark.slow
def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="unknown mmlu_, surely_not; give"):
        task_manager(TaskList(("surely_not", "arc_challenge", "mmlu_"), ()))


def test_a_shipped_task_needs_no_network() -> None:
    _, found = chosen("lm_eval", "eval.lm_eval_tasks=[tiny_sums]")
    assert found.names == ("tiny_sums",)
    assert "tiny_sums" in task_manager(found).all_tasks
    splits = tiny_sums.sums()
    rows = [*splits["train"], *splits["test"]]
    assert len({row["question"] for row in rows}) == len(rows) == 48
    for row in rows:
        a, _, b, _ = row["question"].split()
        assert row["choices"][row["label"]] == str(int(a) + int(b))
        assert len(set(row["choices"])) == 4
