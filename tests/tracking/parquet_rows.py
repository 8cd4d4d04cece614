"""Parquet files of completions as the learner writes them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write_completions(path: Path, count: int = 40, extracted: str | None = "1") -> None:
    """Write `count` completions; number i has i + 1 tokens and a reward of i / count."""
    rows = [
        {
            "prompt_id": f"p{index // 4}",
            "question": f"question {index}",
            "gold": "1",
            "text": f"completion {index}",
            "extracted": extracted,
            "kind": "correct",
            "reward": index / count,
            "finish_reason": "stop",
            "tokens": [7] * (index + 1),
            "logprobs": [0.0] * (index + 1),
            "version_min": 0,
            "version_max": 1,
            "advantage": 0.5,
            "reward_correct": 1.0,
        }
        for index in range(count)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
