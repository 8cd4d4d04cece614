"""Rollouts and validation items as Parquet, one row per completion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grpo_gsm8k.files.aside import file_written_aside
from grpo_gsm8k.learner.rollout_batch import token_versions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Literal

    from grpo_gsm8k.learner.rollout_batch import Batch
    from grpo_gsm8k.learner.task import GradedCompletion


def write_rollouts(path: Path, batch: Batch, advantages_GN: np.ndarray) -> None:
    """Write one row per completion of a policy update."""
    completions = [graded for group in batch.groups for graded in group.completions]
    epochs = [group.epoch for group in batch.groups for _ in group.completions]
    parts = {
        f"reward_{name}": [graded.reward.parts.get(name) for graded in completions]
        for name in completions[0].reward.parts
    }
    advantages = np.asarray(advantages_GN, dtype=np.float64).reshape(-1)
    versions = _lists([token_versions(graded.completion) for graded in completions], np.int64)
    _write(path, {"epoch": epochs, **_columns(completions), "versions": versions, "advantage": advantages, **parts})


def write_validation(path: Path, completions: Sequence[GradedCompletion]) -> None:
    """Write one row per validation item."""
    _write(path, _columns(completions))


def prune(folder: Path, step: int, keep: int | Literal["all"]) -> None:
    """Delete the files of all updates but the last `keep` up to `step`."""
    if keep != "all":
        for path in folder.glob("step_*.parquet"):
            if int(path.stem.removeprefix("step_")) <= step - keep:
                path.unlink()


def _columns(completions: Sequence[GradedCompletion]) -> dict[str, Any]:
    return {
        "prompt_id": [graded.item.problem.id for graded in completions],
        "question": [graded.item.problem.question for graded in completions],
        "gold": [graded.item.problem.gold for graded in completions],
        "text": [graded.text for graded in completions],
        "extracted": [graded.grade.extracted for graded in completions],
        "kind": [str(graded.kind) for graded in completions],
        "reward": [graded.reward.total for graded in completions],
        "finish_reason": [graded.completion.finish_reason for graded in completions],
        "tokens": _lists([graded.completion.token_ids for graded in completions], np.int64),
        "logprobs": _lists([graded.completion.logprobs for graded in completions], np.float64),
        "version_min": [min(s.version for s in graded.completion.version_spans) for graded in completions],
        "version_max": [max(s.version for s in graded.completion.version_spans) for graded in completions],
    }


def _lists(arrays: Sequence[np.ndarray], dtype: type) -> pa.Array:
    """Return a column of lists without a Python object per number, which would take ten times as long."""
    ends = np.cumsum([0, *(len(array) for array in arrays)])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(np.concatenate(arrays).astype(dtype)))


def _write(path: Path, columns: dict[str, Any]) -> None:
    with file_written_aside(path) as aside:
        pq.write_table(pa.table(columns), aside)
