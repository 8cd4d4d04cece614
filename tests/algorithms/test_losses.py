"""Losses and their gradients against derivations by hand; one token a case, numbers in the comments."""

import math
from typing import get_args

import pytest
import torch

from grpo_gsm8k.algorithms.loss_inputs import ClipRange, LossInputs, TokenLoss
from grpo_gsm8k.algorithms.losses import LOSSES, cispo_loss, clipped_loss, reinforce_loss, value_loss
from grpo_gsm8k.config import LossType


def tensor(*values: float, grad: bool = False) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def inputs(logprobs: torch.Tensor, ratio: torch.Tensor, advantages: torch.Tensor, clip: ClipRange) -> LossInputs:
    """Of one sequence, for losses that read nothing else."""
    none = torch.zeros_like(advantages)
    return LossInputs(logprobs, none, ratio, advantages, clip, none.long(), 1, none.bool())


def gradient(output: TokenLoss, leaf: torch.Tensor) -> list[float]:
    (grad,) = torch.autograd.grad(output.loss_N.sum(), leaf, allow_unused=True)
    return [0.0] * len(leaf) if grad is None else grad.tolist()


def test_reinforce() -> None:
    logprobs = tensor(-0.5, -2.0, grad=True)
    output = reinforce_loss(inputs(logprobs, logprobs.exp(), tensor(2.0, -1.0), ClipRange(None, None)))
    assert output.loss_N.tolist() == [1.0, -2.0]
    assert gradient(output, logprobs) == [-2.0, 1.0]
    assert not output.clipped_N.any()


# ratio, advantage, (low, high, dual) -> loss, d loss / d ratio, clipped
CLIP_CASES = [
    (1.5, 1.0, (0.2, 0.2, None), -1.2, 0.0, True),  # above the range and good: held at 1.2
    (1.5, -1.0, (0.2, 0.2, None), 1.5, 1.0, False),  # above and bad: the larger loss counts
    (0.5, 1.0, (0.2, 0.2, None), -0.5, -1.0, False),
    (0.5, -1.0, (0.2, 0.2, None), 0.8, 0.0, True),  # below and bad: held at 0.8
    (1.25, 1.0, (0.2, 0.28, None), -1.25, -1.0, False),  # clip-higher lets it pass
    (1.3, 1.0, (0.2, 0.28, None), -1.28, 0.0, True),
    (5.0, -1.0, (0.2, 0.2, 3.0), 3.0, 0.0, True),  # dual clip: at most 3 |A|
    (2.0, -1.0, (0.2, 0.2, 3.0), 2.0, 1.0, False),
    (5.0, 1.0, (0.2, 0.2, 3.0), -1.2, 0.0, True),  # not for good tokens
    (0.9, 2.0, (0.2, 0.2, 3.0), -1.8, -2.0, False),  # within all bounds the dual clip is not there
    (7.0, 1.0, (None, None, None), -7.0, -1.0, False),
    (7.0, 1.0, (None, 4.0, None), -5.0, 0.0, True),
    (0.01, -1.0, (None, 4.0, None), 0.01, 1.0, False),  # no lower bound
    (3.0, 0.0, (0.2, 0.2, 3.0), 0.0, 0.0, False),
]


@pytest.mark.parametrize(("ratio", "advantage", "clip", "loss", "slope", "clipped"), CLIP_CASES)
def test_clips(ratio: float, advantage: float, clip: tuple, loss: float, slope: float, clipped: bool) -> None:
    leaf = tensor(ratio, grad=True)
    output = clipped_loss(inputs(leaf.log(), leaf, tensor(advantage), ClipRange(*clip)))
    assert output.loss_N.tolist() == pytest.approx([loss])
    assert gradient(output, leaf) == pytest.approx([slope])
    assert output.clipped_N.tolist() == [clipped]


def test_cispo_keeps_every_gradient() -> None:
    # weights 1.5 -> 1.2 and 0.5 -> 0.8; the gradient by log p is -weight * A
    logprobs = tensor(-1.0, -2.0, grad=True)
    output = cispo_loss(inputs(logprobs, tensor(1.5, 0.5), tensor(1.0, -2.0), ClipRange(0.2, 0.2)))
    assert output.loss_N.tolist() == pytest.approx([1.2, -3.2])
    assert gradient(output, logprobs) == pytest.approx([-1.2, 1.6])
    assert output.clipped_N.tolist() == [True, True]


def test_cispo_weight_is_a_constant() -> None:
    logprobs = tensor(-1.0, grad=True)
    ratio = (logprobs + 1.1).exp()  # e^0.1
    output = cispo_loss(inputs(logprobs, ratio, tensor(1.0), ClipRange(None, 4.0)))
    assert gradient(output, logprobs) == pytest.approx([-math.exp(0.1)])


def test_every_loss_type_of_the_configuration_has_a_loss() -> None:
    assert set(LOSSES) == set(get_args(LossType))


# value, old value, return, cliprange -> loss, slope, clipped
VALUE_CASES = [
    (0.5, 0.4, 1.0, 0.2, 0.125, -0.5, False),  # within 0.2 of the old one: plain squared error
    (0.9, 0.4, 1.0, 0.2, 0.5 * 0.4**2, 0.0, True),  # moved by 0.5: judged as 0.6, the worse of the two
    (0.0, 0.4, 1.0, 0.2, 0.5, -1.0, False),  # moved away: the plain error is the worse
    (0.9, 0.4, 1.0, None, 0.005, -0.1, False),
    (0.12, -0.03, 0.48, 0.2, 0.5 * 0.36**2, -0.36, False),  # old + (new - old) is not new in float32
]


@pytest.mark.parametrize(("value", "old", "target", "cliprange", "loss", "slope", "clipped"), VALUE_CASES)
def test_value_loss(
    value: float, old: float, target: float, cliprange: float | None, loss: float, slope: float, clipped: bool
) -> None:
    leaf = tensor(value, grad=True)
    output = value_loss(leaf, tensor(old), tensor(target), cliprange)
    assert output.loss_N.tolist() == pytest.approx([loss])
    assert gradient(output, leaf) == pytest.approx([slope])
    assert output.clipped_N.tolist() == [clipped]
