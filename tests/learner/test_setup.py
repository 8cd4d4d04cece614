"""Checks before the engine starts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cli import load_config
from grpo_gsm8k.errors import UserError
from grpo_gsm8k.learner.setup import check_token_ids, set_up_torch

GIB = 2**30
SUITE = ("policy_gradient.regression_suite.tasks=[arc_easy]",)


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


@pytest.mark.parametrize(
    ("overrides", "total", "limit"),
    [
        ((), 80.0, None),  # the learner has cuda:1 to itself
        (("preset=one_gpu",), 80.0, 80 * 0.6 - 80 * 0.03),
        (("preset=one_gpu", *SUITE), 80.0, 80 * (1 - 0.4 - 0.2) - 80 * 0.03),
        (("preset=one_gpu",), 24.0, 24 * 0.6 - 2 * 0.75),  # two contexts need more than 3 % of a small GPU
        (("preset=one_gpu", *SUITE), 24.0, 24 * 0.4 - 3 * 0.75),
    ],
)
def test_the_learner_leaves_engines_their_shares(
    overrides: tuple[str, ...], total: float, limit: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(["command=policy_gradient", *overrides])
    current: list[str] = []
    limits: dict[str, float] = {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    properties = SimpleNamespace(total_memory=total * GIB)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda fraction, device: limits.update({device: fraction})
    )
    threads = torch.get_num_threads()
    try:
        set_up_torch(config)
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.set_num_threads(threads)
        torch.backends.cuda.enable_cudnn_sdp(True)
    assert current == [config.learner.device]
    assert limits == ({} if limit is None else {config.learner.device: pytest.approx(limit / total)})
