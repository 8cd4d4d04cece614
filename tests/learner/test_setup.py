"""Checks before the engine starts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from grpo_gsm8k.errors import UserError
from grpo_gsm8k.learner.setup import check_token_ids, set_up_torch
from tests.learner.conftest import small_config


def test_the_learners_gpu_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random state and library handles are the current device's."""
    chosen: list[str] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    config = small_config()
    on_gpu = config.learner.model_copy(update={"device": "cuda:1"})
    try:
        set_up_torch(config)
        assert chosen == []
        set_up_torch(config.model_copy(update={"learner": on_gpu}))
        assert chosen == ["cuda:1"]
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)


@pytest.mark.parametrize(
    ("stops", "prompt", "problem"),
    [((1,), [3, 99], "prompts need token id 99"), ((1, 120), [3], "stop tokens include 120")],
)
def test_token_ids_beyond_the_embedding(
    stops: tuple[int, ...], prompt: list[int], problem: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 99}))
    check_token_ids(tmp_path, (1,), [np.array([98])])
    with pytest.raises(UserError, match=f"{problem}, but the embedding has 99 rows"):
        check_token_ids(tmp_path, stops, [np.array(prompt)])
