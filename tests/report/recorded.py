"""Rollouts and timelines in synthetic run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from grpo_gsm8k.tracking.timeline import Timeline
from grpo_gsm8k.transport.protocol import Span


def row(prompt: str, right: bool, text: str = "It is so.", **more: Any) -> dict[str, Any]:
    found = {
        "epoch": 0,
        "prompt_id": prompt,
        "question": f"What is {prompt}?",
        "gold": "7",
        "text": text,
        "extracted": "7" if right else None,
        "kind": "correct" if right else "format",
        "reward": float(right),
        "finish_reason": "stop",
        "tokens": [1, 2, 3],
        "logprobs": [-0.5] * 3,
        "version_min": 4,
        "version_max": 4,
        "advantage": 0.5 if right else -0.5,
        "reward_correct": float(right),
    }
    return found | more


def rollouts(run: Path, update: int, rows: list[dict[str, Any]]) -> Path:
    (run / "rollouts").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path := run / "rollouts" / f"step_{update}.parquet")
    return path


def timeline(run: Path, updates: int, start_s: float = 70.0, actors: int = 1) -> None:
    """Write a trace: the engine starts, then each update takes 2 s, of which the learner waits half a second."""
    trace = Timeline(run / "trace.json")
    trace.mark("start", 1000.0, {"start_step": 0})
    now = 1000.0 + start_s
    trace.span("learner", Span("wait for the engine", 0, 1000.0, start_s))
    for version in range(updates):
        for actor in range(actors):
            trace.span(f"actor-{actor}", Span("generate", version, now - 1, 1.5))
        trace.span("learner", Span("wait for rollouts", version, now, 0.5))
        trace.span("learner", Span("update", version, now + 0.5, 1.5))
        now += 2
        if version % 5 == 0:
            trace.validation(version, now, 3.0)
    trace.close()
