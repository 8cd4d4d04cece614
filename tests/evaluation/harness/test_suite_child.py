"""The process of the regression suite beside a training run."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import load_config
from grpo_gsm8k.config import LearnerConfig
from grpo_gsm8k.evaluation.harness import child
from grpo_gsm8k.learner import merging


def test_an_adapter_is_merged_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []

    def write_merged(config: LearnerConfig, base: Path, adapter: Path, target: Path) -> None:
        devices.append((config.device, config.lora.enabled, base, adapter, target))

    monkeypatch.setattr(merging, "write_merged", write_merged)
    monkeypatch.setattr(child, "start_folder", lambda _: tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = load_config(["command=policy_gradient", "learner=lora"])
    assert child._full_model(config, adapter, tmp_path) == adapter
    (adapter / "adapter_config.json").write_text("{}")
    merged = child._full_model(config, adapter, tmp_path)
    assert devices == [("cpu", True, tmp_path / "base", adapter, merged)]
