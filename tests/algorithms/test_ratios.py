"""Ratios per token and per sequence, and the weights made of them."""

import math

import pytest
import torch

from grpo_gsm8k.algorithms.corrections import correction_weights, kept_tokens
from grpo_gsm8k.algorithms.ratios import importance_ratio

LOG_RATIO = torch.tensor([0.1, 0.3, -0.2, 0.4], dtype=torch.float64)
SEQUENCE = torch.tensor([0, 0, 1, 0])  # tokens of a sequence need not be neighbours


def test_levels() -> None:
    # sequence 0: 0.1 + 0.3 + 0.4 = 0.8 over three tokens; sequence 1: -0.2 over one
    def of(level: str) -> list[float]:
        return importance_ratio(LOG_RATIO, SEQUENCE, level).log().tolist()  # type: ignore[arg-type]

    assert of("token") == pytest.approx([0.1, 0.3, -0.2, 0.4])
    assert of("sequence") == pytest.approx([0.8, 0.8, -0.2, 0.8])
    assert of("geometric_mean") == pytest.approx([0.8 / 3, 0.8 / 3, -0.2, 0.8 / 3])


def test_gspo_spreads_its_gradient_evenly() -> None:
    """d s / d log r_t = s / |o| for every token of the sequence."""
    log_ratio = LOG_RATIO.clone().requires_grad_()
    importance_ratio(log_ratio, SEQUENCE, "geometric_mean")[0].backward()
    assert log_ratio.grad is not None
    share = math.exp(0.8 / 3) / 3
    assert log_ratio.grad.tolist() == pytest.approx([share, share, 0.0, share])


def test_absurd_ratios_are_finite() -> None:
    log_ratio = torch.tensor([500.0, -500.0], requires_grad=True)
    ratio = importance_ratio(log_ratio, torch.tensor([0, 1]), "token")
    ratio.sum().backward()
    assert log_ratio.grad is not None
    assert torch.isfinite(ratio).all()
    assert torch.isfinite(log_ratio.grad).all()


def test_corrections_by_hand() -> None:
    # weights of tokens: e^0.1 = 1.105, e^0.3 = 1.350, e^-0.2 = 0.819, e^0.4 = 1.492; of sequences: e^0.8 = 2.226, 0.819
    def of(kind: str, level: str, low: float = 0.9, high: float = 1.2) -> list[float]:
        return correction_weights(LOG_RATIO, SEQUENCE, kind, level, low, high).tolist()  # type: ignore[arg-type]

    assert of("none", "token") == [1.0] * 4
    assert of("importance", "token") == pytest.approx([math.exp(x) for x in LOG_RATIO.tolist()])
    assert of("truncate", "token") == pytest.approx([math.exp(0.1), 1.2, math.exp(-0.2), 1.2])
    assert of("truncate", "sequence", high=2.0) == pytest.approx([2.0, 2.0, math.exp(-0.2), 2.0])
    assert of("mask", "token") == [1.0, 0.0, 0.0, 0.0]
    assert of("masked_importance", "token") == pytest.approx([math.exp(0.1), 0.0, 0.0, 0.0])
    assert of("masked_importance", "sequence", high=3.0) == pytest.approx([*[math.exp(0.8)] * 2, 0.0, math.exp(0.8)])
    assert of("mask", "geometric_mean", high=1.4) == [1.0, 1.0, 0.0, 1.0]  # e^(0.8 / 3) = 1.306


def test_corrections_are_constants() -> None:
    assert not correction_weights(LOG_RATIO.clone().requires_grad_(), SEQUENCE, "truncate", "token", 0, 2).requires_grad


def test_rejections_by_hand() -> None:
    def of(**ranges: tuple[float, float]) -> list[bool]:
        return kept_tokens(LOG_RATIO, SEQUENCE, ranges, 2).tolist()

    assert of() == [True] * 4
    assert of(token=(0.9, 1.4)) == [True, True, False, False]
    assert of(sequence=(0.5, 2.0)) == [False, False, True, False]
    assert of(geometric_mean=(0.9, 1.4)) == [True, True, False, True]
    assert of(outlier=(0.5, 1.4)) == [False, False, True, False]  # the last token's 1.49 removes its sequence
    assert of(token=(0.5, 1.2), geometric_mean=(0.9, 1.4)) == [True, False, False, False]  # inside every range
