"""Synthetic run folders for tests: a training run, and an evaluation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> \ud800"
KINDS = ("logic", "format", "truncated")


def config(command: str, name: str, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "command": command,
        "name": name,
        "seed": 0,
        "data": {"name": "sums", "folder": "sums"},
        "model": {"path": "owner/model", "init": "pretrained"},
        "actor": {"device": "cpu", "replicas": 1},
        "learner": {"device": "cpu", "lr": 1e-6, "lora": {"enabled": False, "rank": 16}, "quantization": "none"},
        "policy_gradient": {"loss_type": "grpo_clip", "advantage": None, "ratio": "token", "critic": {"kind": "none"}},
        "sft": {"epochs": 1},
        "eval": {"num_shards": 1, "split": "test"},
    }
    return found | changes


def training(
    runs: Path, name: str, updates: int = 6, right: int = 10, command: str = "policy_gradient", **more: Any
) -> Path:
    """Write a run over 20 items, of which 5 are right at the start and `right` at the end."""
    folder = runs / f"20260101-00000{len(list(runs.glob('*'))) if runs.is_dir() else 0}_{name}"
    (folder / "validation").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(command, name, **more)))
    tokens = "rollout/tokens" if command == "policy_gradient" else "train/response_tokens"
    lines: list[dict[str, Any]] = []
    for step in range(1, updates + 1):
        reward = {"train/reward_mean": step / updates, "train/reward_format": 1 - 1 / step}
        measured = {"train/entropy": 1 / step, "train/clip_frac": 0.0, "train/grad_norm": math.nan}
        lines.append({"step": step, tokens: 1000.0, "time/step_s": 30.0, **reward, **measured})
    for version, n in ((0, 5), (updates, right)):
        lines.append(validation(version, n / 20))
        answers(folder / "validation" / f"step_{version}.parquet", n)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {"status": "done", "steps": updates, "total_steps": updates, "wall_seconds": 3600.0}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "events.jsonl").write_text('{"time": 0, "kind": "start"}\n{"time": 90, "kind": "end"}\n')
    return folder


def validation(version: int, accuracy: float) -> dict[str, float]:
    ends = {"val/accuracy_ci_low": accuracy - 0.1, "val/accuracy_ci_high": accuracy + 0.1}
    return {"val/version": version, "val/accuracy": accuracy, **ends}


def answers(path: Path, right: int) -> None:
    rows = [
        {
            "prompt_id": f"q{i:02d}",
            "question": f"What is {i} + 1?",
            "gold": str(i + 1),
            "text": f"It is {i + 1}. #### {i + 1}" if i < right else f"apples {EVIL[:-1]}",
            "extracted": str(i + 1) if i < right else None,
            "kind": "correct" if i < right else KINDS[i % 3],
        }
        for i in range(20)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def evaluation(runs: Path, name: str = "eval", samples: int = 1) -> Path:
    """Write an evaluation of two models at two temperatures; the second is more accurate."""
    folder = runs / f"20260102-000000_{name}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config("eval", name)))
    lines, results = [], []
    for model, right in (("owner/small", 4), ("/x/runs/1_a/checkpoints/step_9/model", 16)):
        for temperature in (0.0, 1.0):
            asked = {"model": model, "prompting": "zero_shot", "temperature": temperature}
            accuracy = right / 20
            results.append(
                {**asked, "items": 20, "samples": samples, "accuracy": accuracy, "ci_low": 0.1, "ci_high": 0.9}
            )
            for i in range(20):
                answered = {"text": EVIL, "extracted": None, "kind": "correct" if i < right else "format", "tokens": 5}
                item = {"item_id": f"q{i:02d}", "question": f"What is {i} + 1?", "gold": str(i + 1)}
                lines += [{**asked, **item, **answered, "sample": sample} for sample in range(samples)]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"model": "tor')
    compared = {"a": "owner/small", "b": "big", "difference": 0.6, "ci_low": 0.4, "ci_high": 0.8, "p": 1e-5}
    compared |= {"p_holm": 2e-5, "smallest_difference": None, "verdict": "better"}
    score = {"model": "big", "task": "hellaswag", "metric": "acc", "filter": "none", "value": 0.3, "stderr": 0.02}
    change = {**score, "before": 0.1, "difference": 0.2, "stderr": 0.03, "regression": False, "verdict": "better"}
    lm_eval = {"scores": [score], "changes": [change]}
    summary = {"kind": "eval", "results": results, "comparisons": [compared], "lm_eval": lm_eval}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder
