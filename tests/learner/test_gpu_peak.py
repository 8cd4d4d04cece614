"""GPU memory of the learner: none on a CPU; the peak since the last call on a GPU."""

from __future__ import annotations

import pytest
import torch

from grpo_gsm8k.learner.gpu_peak import gpu_peak_metrics


def test_a_cpu_has_none() -> None:
    assert gpu_peak_metrics("cpu") == {}


def test_peaks_are_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU, torch's counters are replaced: 3 GiB used at most before the reset, 1 after it."""
    peaks = {"used": 3.0}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks["used"] * 2**30)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 4.0 * 2**30)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peaks.update(used=1.0))
    assert gpu_peak_metrics("cuda:0") == {"mem/learner_gpu_used": 3.0, "mem/learner_gpu_held": 4.0}
    assert gpu_peak_metrics("cuda:0")["mem/learner_gpu_used"] == 1.0
