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
    from grpo_gsm8k.learner.task import Judged


def write_rollouts(path: Path, batch: Batch, advantages_GN: np.ndarray) -> None:
    """One row per completion of a training step."""
    rows = [
        {"epoch": group.epoch, **_row(judged), "advantage": float(advantage), **_parts(judged)}
        for group, advantages_N in zip(batch.groups, advantages_GN, strict=True)
        for judged, advantage in zip(group.judged, advantages_N, strict=True)
    ]
    _write(path, rows)


def write_validation(path: Path, judged: Sequence[Judged]) -> None:
    """One row per validation item."""
    _write(path, [_row(j) for j in judged])


def _row(judged: Judged) -> dict[str, Any]:
    completion = judged.completion
    return {
        "prompt_id": judged.item.problem.id,
        "question": judged.item.problem.question,
        "gold_number": judged.item.problem.gold_number,
        "text": judged.text,
        "extracted": judged.grade.extracted,
        "kind": str(judged.kind),
        "reward": judged.reward.total,
        "finish_reason": completion.finish_reason,
        "tokens": completion.token_ids.tolist(),
        "logprobs": completion.logprobs.tolist(),
        "version_min": min(span.version for span in completion.version_spans),
        "version_max": max(span.version for span in completion.version_spans),
    }


def _parts(judged: Judged) -> dict[str, float]:
    return {f"reward_{name}": value for name, value in judged.reward.parts.items()}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Whole or not at all: a reader never sees half a file."""
    with file_written_aside(path) as aside:
        pq.write_table(pa.Table.from_pylist(rows), aside)
