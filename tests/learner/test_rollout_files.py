"""Parquet files of completions: as if each row had been written as a Python dictionary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grpo_gsm8k.grading import answers, rewards, scoring
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.learner import rollout_files
from grpo_gsm8k.learner.rollout_batch import Batch, RolloutGroup
from grpo_gsm8k.learner.task import GradedCompletion, Item
from grpo_gsm8k.transport.protocol import Completion, VersionSpan


def groups(count: int, size: int) -> list[RolloutGroup]:
    rng = np.random.default_rng(0)
    made = []
    for g in range(count):
        item = Item(Problem(f"p{g}", f"{g}+1=", f"#### {g + 1}", str(g + 1)), np.array([5], dtype=np.int32))
        made.append(RolloutGroup(3, item, tuple(graded(item, rng, i) for i in range(size))))
    return made


def graded(item: Item, rng: np.random.Generator, index: int) -> GradedCompletion:
    length = int(rng.integers(2, 9))
    spans = (VersionSpan(4, 0, 1), VersionSpan(5, 1, length))
    ids, logprobs = rng.integers(0, 150_000, length, dtype=np.int32), rng.normal(size=length).astype(np.float32)
    text = f"#### {index}" if index % 2 else "none"
    grade = answers.grade(text, item.problem.gold, answers.AnswerFormat.HASH, answers.Locale.EN)
    reward = rewards.RewardScore(0.1 * index, {"correct": float(index), "format": 0.5})
    completion = Completion(ids, logprobs, "stop", spans)
    return GradedCompletion(item, completion, text, grade, reward, scoring.classify(grade, False))


def row(group: RolloutGroup, one: GradedCompletion, advantage: float) -> dict[str, object]:
    """The columns in their order, written down independently of the code."""
    return {
        "epoch": group.epoch,
        "prompt_id": one.item.problem.id,
        "question": one.item.problem.question,
        "gold": one.item.problem.gold,
        "text": one.text,
        "extracted": one.grade.extracted,
        "kind": str(one.kind),
        "reward": one.reward.total,
        "finish_reason": "stop",
        "tokens": one.completion.token_ids.tolist(),
        "logprobs": one.completion.logprobs.tolist(),
        "version_min": 4,
        "version_max": 5,
        "versions": [4] + [5] * (len(one.completion.token_ids) - 1),
        "advantage": advantage,
        "reward_correct": one.reward.parts["correct"],
        "reward_format": 0.5,
    }


def test_columns_types_and_values_are_those_of_rows(tmp_path: Path) -> None:
    batch = Batch(groups(3, 4), np.zeros((3, 4)), [])
    advantages_GN = np.random.default_rng(1).normal(size=(3, 4))
    rollout_files.write_rollouts(tmp_path / "step_1.parquet", batch, advantages_GN)
    rows = [
        row(g, c, float(a))
        for g, at in zip(batch.groups, advantages_GN, strict=True)
        for c, a in zip(g.completions, at, strict=True)
    ]
    expected = pa.Table.from_pylist(rows)
    written = pq.read_table(tmp_path / "step_1.parquet")
    assert written.schema == expected.schema
    assert written.to_pylist() == rows
    pq.write_table(expected, tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").read_bytes() == (tmp_path / "step_1.parquet").read_bytes()


def test_validation_has_the_same_columns_without_those_of_training(tmp_path: Path) -> None:
    completions = [one for group in groups(4, 1) for one in group.completions]
    rollout_files.write_validation(tmp_path / "step_5.parquet", completions)
    names = pq.read_schema(tmp_path / "step_5.parquet").names
    assert names == list(row(groups(1, 1)[0], completions[0], 0.0))[1:-4]


@pytest.mark.parametrize(("keep", "left"), [(2, {8, 9, 12}), (1, {9, 12}), ("all", {1, 2, 8, 9, 12})])
def test_old_files_are_deleted(tmp_path: Path, keep: int, left: set[int]) -> None:
    """Later files, of updates before a run was continued from an earlier one, are written again in any case."""
    for step in (1, 2, 8, 9, 12):
        (tmp_path / f"step_{step}.parquet").touch()
    rollout_files.prune(tmp_path, 9, keep)  # type: ignore[arg-type]
    assert {int(path.stem[5:]) for path in tmp_path.iterdir()} == left
