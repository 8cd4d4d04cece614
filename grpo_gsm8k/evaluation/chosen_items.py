"""The problems of an evaluation, by id. They are saved in the run folder, and a resumed run evaluates the same ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from grpo_gsm8k.data.limits import limited
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.evaluation.predictions import FILE
from grpo_gsm8k.files.aside import write_atomically
from grpo_gsm8k.files.json_lines import read_json
from grpo_gsm8k.tracking import run_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from grpo_gsm8k.config import Config
    from grpo_gsm8k.grading.problem import Problem
    from grpo_gsm8k.tracking.run_folder import RunFolder

ITEMS = "items.json"


def chosen(config: Config, problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems to evaluate: those of `eval.limit`, or those of the run that is resumed. Raises UserError."""
    saved = _saved(config)
    if saved is None:
        return limited(problems, config.eval.limit, config.seed, "eval.limit")
    by_id = {problem.id: problem for problem in problems}
    file, ids = saved
    if missing := [item_id for item_id in ids if item_id not in by_id]:
        raise UserError(
            f"eval.resume_from: {len(missing)} problems of {file} are not in the data any more, first {missing[0]}: "
            "restore the data, or start without eval.resume_from"
        )
    return [by_id[item_id] for item_id in ids]


def save(run: RunFolder, problems: Sequence[Problem]) -> None:
    """Write the ids in the order of evaluation."""
    ids = [problem.id for problem in problems]
    write_atomically(run.path / ITEMS, json.dumps({"item_ids": ids}) + "\n")


def _saved(config: Config) -> tuple[Path, list[str]] | None:
    if config.eval.resume_from is None:
        return None
    file = run_folder.find_with(config.artifacts, config.eval.resume_from, FILE).path / ITEMS
    return (file, list(read_json(file)["item_ids"])) if file.is_file() else None
