"""Losses and gradients against the papers' formulas, one sequence and token at a time, in float64.

Sequences of 1 to 8 tokens, interleaved, and four distances between the present policy and the one before. The formulas
are written in products and ratios of probabilities, the code in differences of logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from grpo_gsm8k.algorithms.loss_inputs import ClipRange, LossInputs
from grpo_gsm8k.algorithms.losses import LOSSES
from grpo_gsm8k.algorithms.ratios import importance_ratio

LENGTHS = (1, 5, 3, 8)
DISTANCES = (0.0, 0.01, 0.3, 2.0)  # standard deviation of the change of a log-probability
# Of 20 float64 operations per token, each exact to 1e-16, on values of at most a few hundred.
EXACT = {"rel": 1e-11, "abs": 1e-13}

Row = list[torch.Tensor]


def constant(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def product(values: Row) -> torch.Tensor:
    return math.prod(values, start=constant(1.0))


def sapo(now: Row, old: Row, a: float, i: int) -> torch.Tensor:
    tau = 1.0 if a > 0 else 1.05
    return -a * 4 / tau / (1 + torch.exp(-tau * (now[i] / old[i] - 1)))


def dppo(kind: str, low: float, high: float, largest: float) -> Callable[..., torch.Tensor]:
    def loss(now: Row, old: Row, a: float, i: int) -> torch.Tensor:
        p, q = now[i].item(), old[i].item()
        kl = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
        distance = abs(p - q) if kind == "tv" else kl
        if (a > 0 and p > q and distance > high) or (a < 0 and p < q and distance > low):
            return 0 * now[i]
        return -a * min(p / q, largest) * torch.log(now[i])

    return loss


def gmpo(now: Row, old: Row, a: float, i: int) -> torch.Tensor:
    ratios = [p / q for p, q in zip(now, old, strict=True)]
    if a > 0:
        bounded = [r if r.item() < math.exp(0.4) else constant(math.exp(0.4)) for r in ratios]
    else:
        bounded = [r if r.item() > math.exp(-0.3) else constant(math.exp(-0.3)) for r in ratios]
    return -a * product(bounded) ** (1 / len(now))


def vespo(now: Row, old: Row, a: float, i: int) -> torch.Tensor:
    w = product([p / q for p, q in zip(now, old, strict=True)]).item()
    k, decay = (2.0, 3.0) if a >= 0 else (3.0, 2.0)
    return -(w**k) * math.exp(decay * (1 - w)) * a * torch.log(now[i])


def gspo_token(now: Row, old: Row, a: float, i: int) -> torch.Tensor:
    s = product([p / q for p, q in zip(now, old, strict=True)]).item() ** (1 / len(now))
    r = s * now[i] / now[i].item()
    bounded = constant(min(max(s, 0.8), 1.25))
    return -torch.min(r * a, bounded * a) if s != bounded.item() else -r * a


NO_CLIP = ClipRange(None, None)
CASES: dict[str, tuple[str, Callable[..., torch.Tensor], ClipRange, dict[str, float], Any]] = {
    "sapo": ("sapo", sapo, NO_CLIP, {"tau_pos": 1.0, "tau_neg": 1.05}, "token"),
    "dppo_tv": ("dppo_tv", dppo("tv", 0.05, 0.1, 1.5), ClipRange(0.05, 0.1, 1.5), {}, "token"),
    "dppo_kl": ("dppo_kl", dppo("kl", 0.02, 0.05, 1.5), ClipRange(0.02, 0.05, 1.5), {}, "token"),
    "dppo_unbounded": ("dppo_tv", dppo("tv", math.inf, math.inf, math.inf), NO_CLIP, {}, "token"),
    "gmpo": ("gmpo", gmpo, ClipRange(0.3, 0.4), {}, "token"),
    "vespo": ("vespo", vespo, NO_CLIP, {"k_pos": 2.0, "lambda_pos": 3.0, "k_neg": 3.0, "lambda_neg": 2.0}, "token"),
    "gspo_token": ("ppo_clip", gspo_token, ClipRange(0.2, 0.25), {}, "geometric_mean_token"),
}


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient(case: str, distance: float) -> None:
    name, formula, clip, constants, level = CASES[case]
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(sum(LENGTHS), generator=generator)
    sequence = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))[order]
    advantages = torch.tensor([1.5, -0.5, 0.8, -2.0], dtype=torch.float64)[sequence]
    if level == "geometric_mean_token":  # advantages per token, as a critic gives them
        advantages = torch.randn(len(sequence), generator=generator, dtype=torch.float64)
    start = torch.randn(len(sequence), generator=generator, dtype=torch.float64) - 2.5
    logprobs = start.clamp(max=-0.3).requires_grad_()
    shift = distance * torch.randn(len(sequence), generator=generator, dtype=torch.float64)
    old = (logprobs.detach() + shift).clamp(max=-0.05)

    ratio = importance_ratio(logprobs - old, sequence, level, len(LENGTHS))
    selected = torch.zeros(len(sequence), dtype=torch.bool)
    given = LossInputs(logprobs, old, ratio, advantages, clip, sequence, len(LENGTHS), selected)
    output = LOSSES[name](given, **constants)
    weights = torch.rand(len(sequence), generator=generator, dtype=torch.float64)
    (found,) = torch.autograd.grad((output.loss_N * weights).sum(), logprobs)

    leaf = logprobs.detach().clone().requires_grad_()
    losses = torch.zeros(len(sequence), dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for s in range(len(LENGTHS)):
        members = (sequence == s).nonzero()[:, 0].tolist()
        now = [leaf[j].exp() for j in members]
        before = [old[j].exp() for j in members]
        for i, j in enumerate(members):
            loss = formula(now, before, advantages[j].item(), i)
            losses[j] = loss.detach()
            total = total + weights[j] * loss
    (expected,) = torch.autograd.grad(total, leaf)
    assert output.loss_N.tolist() == pytest.approx(losses.tolist(), **EXACT)
    assert found.tolist() == pytest.approx(expected.tolist(), **EXACT)


@pytest.mark.parametrize("before", [0.0, -1.2e-7, -1e-4])
def test_a_token_that_is_certain_now_has_hardly_diverged(before: float) -> None:
    """float32 gives p = 1 for it, so 1 - p = 0; the KL divergence is below 1e-3, and neither NaN nor infinite."""
    logprobs = torch.zeros(2, requires_grad=True)
    old = torch.full((2,), before)
    one, signs = torch.ones(2), torch.tensor([1.0, -1.0])
    given = LossInputs(
        logprobs, old, one, signs, ClipRange(1e-3, 1e-3), torch.zeros(2).long(), 1, torch.zeros(2).bool()
    )
    output = LOSSES["dppo_kl"](given)
    assert not output.clipped_N.any()
    output.loss_N.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [-1.0, 1.0]
