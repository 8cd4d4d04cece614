"""Losses and gradients against a derivation in float64 that shares no code: loops over tokens, gradients by hand."""

import math

import pytest
import torch

from grpo_gsm8k.algorithms.losses import policy_gradient_loss

LOGPROBS = [-0.5, -1.0, -2.0, -0.1, -3.0, -0.7]
BEHAVIOUR = [-0.9, -1.0, -1.2, -0.4, -2.9, -0.7]
ADVANTAGES = [1.0, 1.0, -0.5, -0.5, 2.0, 0.0]
WEIGHTS = [0.25, 0.25, 0.1, 0.1, 0.05, 0.25]


def by_hand(loss_type: str, cliprange: float) -> tuple[float, list[float]]:
    """Loss and its derivative by each log-probability."""
    loss, gradient = 0.0, []
    for logprob, old, advantage, weight in zip(LOGPROBS, BEHAVIOUR, ADVANTAGES, WEIGHTS, strict=True):
        if loss_type != "grpo_clip":
            loss += -weight * advantage * logprob
            gradient.append(-weight * advantage)
            continue
        ratio = math.exp(logprob - old)
        bounded = min(max(ratio, 1 - cliprange), 1 + cliprange)
        if ratio * advantage <= bounded * advantage:  # the unclipped branch is the minimum; d ratio / d logprob = ratio
            loss += -weight * ratio * advantage
            gradient.append(-weight * ratio * advantage)
        else:
            loss += -weight * bounded * advantage
            gradient.append(0.0)
    return loss, gradient


@pytest.mark.parametrize("loss_type", ["no_baseline", "reinforce_with_baseline", "grpo_clip"])
@pytest.mark.parametrize("cliprange", [0.1, 0.2, 0.5])
def test_value_and_gradient(loss_type: str, cliprange: float) -> None:
    logprobs = torch.tensor(LOGPROBS, dtype=torch.float64, requires_grad=True)
    others = [torch.tensor(values, dtype=torch.float64) for values in (BEHAVIOUR, ADVANTAGES, WEIGHTS)]
    output = policy_gradient_loss(loss_type, logprobs, *others, cliprange)  # type: ignore[arg-type]
    output.loss.backward()
    loss, gradient = by_hand(loss_type, cliprange)
    assert output.loss.item() == pytest.approx(loss, rel=1e-12)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx(gradient, rel=1e-12)


def test_clipped_tokens_are_marked() -> None:
    # ratios: e^0.4 = 1.49 (A > 0: clipped), 1, e^-0.8 = 0.45 (A < 0: clipped), e^0.3 = 1.35 (A < 0: not), 0.90, 1
    values = [torch.tensor(v, dtype=torch.float64) for v in (LOGPROBS, BEHAVIOUR, ADVANTAGES, WEIGHTS)]
    output = policy_gradient_loss("grpo_clip", *values, 0.2)
    assert output.clipped_N.tolist() == [True, False, True, False, False, False]


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_an_absurd_ratio_gives_finite_gradients(advantage: float) -> None:
    logprobs = torch.tensor([-1.0, -500.0], requires_grad=True)
    behaviour = torch.tensor([-500.0, -1.0])
    output = policy_gradient_loss(
        "grpo_clip", logprobs, behaviour, torch.full((2,), advantage), torch.full((2,), 0.5), 0.2
    )
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert logprobs.grad is not None
    assert torch.isfinite(logprobs.grad).all()
