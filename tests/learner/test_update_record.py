"""Recorded updates: what is written is read back, masks and left-out completions included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from grpo_gsm8k.learner import update_record
from tests.learner.conftest import random_groups, random_rewards


def test_a_batch_is_read_back_and_old_ones_predict_every_token(tmp_path: Path) -> None:
    groups = random_groups()
    masked = replace(groups[0][1], mask=np.arange(len(groups[0][1].mask)) % 2 == 0, in_loss=False)
    groups[0][1] = masked
    update_record.save_batch(tmp_path, groups, random_rewards())
    read, rewards = update_record.load_batch(tmp_path)
    assert np.array_equal(rewards, random_rewards())
    assert np.array_equal(read[0][1].mask, masked.mask)
    assert [[s.in_loss for s in group] for group in read] == [[s.in_loss for s in group] for group in groups]
    for name in ("prompt_ids", "completion_ids", "behaviour_logprobs", "on_policy"):
        for one, other in zip(read, groups, strict=True):
            assert all(np.array_equal(getattr(a, name), getattr(b, name)) for a, b in zip(one, other, strict=True))

    tensors = load_file(tmp_path / "batch.safetensors")
    del tensors["mask"]  # as written before masks existed
    save_file(tensors, tmp_path / "batch.safetensors")
    assert all(s.mask.all() for group in update_record.load_batch(tmp_path)[0] for s in group)
