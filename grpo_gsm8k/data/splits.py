"""Train, validation and test problems out of a source's."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import TYPE_CHECKING, Literal

from grpo_gsm8k.data.problems import same_question
from grpo_gsm8k.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.config import DataConfig
    from grpo_gsm8k.data.sources import SourceProblems
    from grpo_gsm8k.grading.problem import Problem

Split = Literal["train", "val", "test"]


def split_problems(config: DataConfig, source: SourceProblems) -> tuple[dict[Split, list[Problem]], Counter[str]]:
    """Hold out `test_size` problems if the source has no test set, then `val_size`; all keep the source's order.

    Returns the splits, and how many train problems were left out by reason (with `data.invalid=drop` only).
    """
    train, test, dropped = source.train, source.test, Counter[str]()
    if config.invalid == "drop":
        train, dropped = _untested(train, test or [])
    if test is None:
        train, test = _held_out(train, _test_size(config, train), f"test:{config.seed}", "test_size", config.test_size)
    _refuse_overlap(train, test)
    if not train:
        return {"train": [], "val": [], "test": test}, dropped
    train, val = _held_out(train, config.val_size, str(config.seed), "val_size", config.val_size)
    return {"train": train, "val": val, "test": test}, dropped


def _test_size(config: DataConfig, problems: Sequence[Problem]) -> int:
    """Return the number of test problems; a share below 1 is rounded to the nearest number."""
    size = config.test_size
    return int(size) if size >= 1 else math.floor(size * len(problems) + 0.5)


def _held_out(
    problems: list[Problem], size: int, salt: str, key: str, value: float
) -> tuple[list[Problem], list[Problem]]:
    """Return the problems without, and the problems of, a seeded random part."""
    counts = Counter(same_question(problem) for problem in problems)
    # A duplicated question could end up in both parts, so it stays in train.
    unique = [problem for problem in problems if counts[same_question(problem)] == 1]
    if not 0 < size <= len(unique) or size >= len(problems):
        raise UserError(
            f"data.{key}={value:g} leaves nothing to train on or to hold out: the source has {len(problems)} train "
            f"problems, {len(unique)} of them with a unique question; set another data.{key}"
        )
    # Ranked by hash instead of a random generator, so that the split does not depend on the version of numpy.
    ranked = sorted(unique, key=lambda problem: hashlib.sha256(f"{salt}:{problem.id}".encode()).digest())
    held_out = {problem.id for problem in ranked[:size]}
    return [p for p in problems if p.id not in held_out], [p for p in problems if p.id in held_out]


def _untested(train: list[Problem], test: Sequence[Problem]) -> tuple[list[Problem], Counter[str]]:
    """Return the train problems whose question does not occur in test, and the number of the others."""
    tested = {same_question(problem) for problem in test}
    kept = [problem for problem in train if same_question(problem) not in tested]
    return kept, Counter({"question of a test problem": len(train) - len(kept)} if len(kept) < len(train) else {})


def _refuse_overlap(train: Sequence[Problem], test: Sequence[Problem]) -> None:
    questions = {same_question(problem): problem.id for problem in train}
    train_ids = set(questions.values())
    for problem in test:
        twin = questions.get(same_question(problem))
        if twin is not None:
            raise UserError(
                f"test problem {problem.id} asks the same question as train problem {twin}: "
                "remove one of them, or set data.invalid=drop"
            )
        if problem.id in train_ids:
            raise UserError(f"the id {problem.id} occurs in both train and test problems: rename one of them")
