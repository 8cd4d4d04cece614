"""Rollouts and validation items as Parquet, one row per completion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from grpo_gsm8k.files.aside import file_written_aside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from grpo_gsm8k.learner.rollouts import Batch
    from grpo_gsm8k.learner.task import GradedCompletion


def write_rollouts(path: Path, batch: Batch, advantages_GN: np.ndarray) -> None:
    """Write one row per completion of a policy update."""
    rows = [
        {"epoch": group.epoch, **_row(graded), "advantage": float(advantage), **_parts(graded)}
        for group, advantages_N in zip(batch.groups, advantages_GN, strict=True)
        for graded, advantage in zip(group.completions, advantages_N, strict=True)
    ]
    _write(path, rows)


def write_validation(path: Path, completions: Sequence[GradedCompletion]) -> None:
    """Write one row per validation item."""
    _write(path, [_row(graded) for graded in completions])


def _row(graded: GradedCompletion) -> dict[str, Any]:
    completion = graded.completion
    return {
        "prompt_id": graded.item.problem.id,
        "question": graded.item.problem.question,
        "gold": graded.item.problem.gold,
        "text": graded.text,
        "extracted": graded.grade.extracted,
        "kind": str(graded.kind),
        "reward": graded.reward.total,
        "finish_reason": completion.finish_reason,
        "tokens": completion.token_ids.tolist(),
        "logprobs": completion.logprobs.tolist(),
        "version_min": min(span.version for span in completion.version_spans),
        "version_max": max(span.version for span in completion.version_spans),
    }


def _parts(graded: GradedCompletion) -> dict[str, float]:
    return {f"reward_{name}": value for name, value in graded.reward.parts.items()}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with file_written_aside(path) as aside:
        pq.write_table(pa.Table.from_pylist(rows), aside)
