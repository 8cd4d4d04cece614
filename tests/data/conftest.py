from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from grpo_gsm8k.config import DataConfig

GSM8K = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k"


@pytest.fixture
def gsm8k() -> Path:
    """The real GSM8K files, which are not part of the repository."""
    if not (GSM8K / "train.jsonl").is_file():
        pytest.skip(f"{GSM8K} is absent")
    return GSM8K


@pytest.fixture
def data_config() -> Callable[..., DataConfig]:
    def make(**changes: object) -> DataConfig:
        values = {
            "folder": "set",
            "source": "jsonl",
            "name": "main",
            "hub_id": "openai/gsm8k",
            "revision": "e53f048856ff4f594e959d75785d2c2d37b678ee",
            "train_path": "train.jsonl",
            "test_path": "test.jsonl",
            "val_size": 2,
            "train_size": 1,
            "test_size": 0,
            "params": {},
            "seed": 0,
            "locale": None,
        }
        return DataConfig.model_validate(values | changes)

    return make


@pytest.fixture
def rows() -> Callable[[Path, list[object]], Path]:
    """Write rows as JSONL; strings are written as raw lines."""

    def write(path: Path, items: list[object]) -> Path:
        lines = [item if isinstance(item, str) else json.dumps(item) for item in items]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return write
