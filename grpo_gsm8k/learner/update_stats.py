"""Statistics of one policy update: totals over its tokens, and the averages reported as its metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpo_gsm8k.learner.objective import Objective
    from grpo_gsm8k.learner.optimizer import StepStats


@dataclass(slots=True)
class Totals:
    """Losses, and by metric name sums over tokens, their numbers and extremes: plain numbers, which ranks exchange."""

    loss: float = 0.0
    policy_loss: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)
    minima: dict[str, float] = field(default_factory=dict)

    def merge(self, other: Totals) -> None:
        """Take in the totals of other tokens."""
        self.loss += other.loss
        self.policy_loss += other.policy_loss
        for name, count in other.counts.items():
            self.sums[name] = self.sums.get(name, 0.0) + other.sums[name]
            self.counts[name] = self.counts.get(name, 0) + count
        for name, value in other.maxima.items():
            self.maxima[name] = max(self.maxima.get(name, 0.0), value)
        for name, value in other.minima.items():
            self.minima[name] = min(self.minima.get(name, math.inf), value)


class TokenStats:
    """Collects what micro-batches give, one number each, and keeps it on the device until `read`.

    Reading a number makes the host wait until the GPU has computed it.
    """

    def __init__(self) -> None:
        self._unread: list[tuple[Callable[[float], Totals], torch.Tensor]] = []

    def add(self, output: Objective, on_policy_M: torch.Tensor | None) -> None:
        """Add one micro-batch; `on_policy_M` are the indices of tokens that the engine sampled with these weights.

        The gap between engine and learner is measured on those alone; None: there are none any more.
        """
        self._unread.append((lambda value: Totals(loss=value), output.loss))
        self._unread.append((lambda value: Totals(policy_loss=value), output.policy_loss))
        for name, values_N in output.per_token.items():
            self._add(name, values_N)
        ratio_N = output.log_ratio_N.exp()
        self._add("train/ratio_mean", ratio_N)
        self._maximum("train/ratio_max", ratio_N)
        self._minimum("train/ratio_min", ratio_N)
        # k3 estimate of KL(behavior || current), arXiv:2402.03300 eq. 4; never negative.
        self._add("train/kl_behaviour", ratio_N - 1 - output.log_ratio_N)
        if on_policy_M is not None:
            self.add_gap(output.log_ratio_N[on_policy_M].abs())

    def add_gap(self, gap_N: torch.Tensor) -> None:
        """Add |engine - learner| log-probabilities of tokens that the engine sampled with the present weights."""
        self._add("sync/logprob_gap_mean", gap_N)
        self._maximum("sync/logprob_gap_max", gap_N)

    def read(self) -> Totals:
        """Return the totals of everything that was added, taken from the device all at once."""
        totals = Totals()
        if self._unread:
            values = torch.stack([value.detach().double() for _, value in self._unread]).tolist()
            for (as_totals, _), value in zip(self._unread, values, strict=True):
                totals.merge(as_totals(value))
        return totals

    def _add(self, name: str, values_N: torch.Tensor) -> None:
        if count := len(values_N):
            self._unread.append((lambda value: Totals(sums={name: value}, counts={name: count}), values_N.sum()))

    def _maximum(self, name: str, values_N: torch.Tensor) -> None:
        if len(values_N):
            self._unread.append((lambda value: Totals(maxima={name: value}), values_N.max()))

    def _minimum(self, name: str, values_N: torch.Tensor) -> None:
        if len(values_N):
            self._unread.append((lambda value: Totals(minima={name: value}), values_N.min()))


class UpdateStats:
    """Accumulates over the optimizer steps of an update; a metric without data is left out."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.epochs = 0
        self._totals = Totals()
        self._steps: list[StepStats] = []
        self._critic_steps: list[StepStats] = []

    def add_tokens(self, totals: Totals) -> None:
        """Add tokens that belong to no optimizer step: those that only the gap is measured on."""
        self._totals.merge(totals)

    def add_step(self, totals: Totals, policy: StepStats, critic: StepStats | None) -> None:
        """Add one optimizer step with the totals of its tokens."""
        self._totals.merge(totals)
        self.losses.append(totals.loss)
        self._steps.append(policy)
        if critic is not None:
            self._critic_steps.append(critic)

    def total(self, name: str) -> tuple[float, int]:
        """Sum and number of tokens so far."""
        return self._totals.sums.get(name, 0.0), self._totals.counts.get(name, 0)

    @property
    def kl_reference(self) -> float | None:
        """Mean KL to the reference in nats per token; None if it was not computed."""
        total, count = self.total("train/kl_reference")
        return total / count if count else None

    def loss_and_grad_norm(self) -> tuple[float, float]:
        """Mean loss and mean gradient norm over the optimizer steps."""
        return float(np.mean(self.losses)), float(np.mean([step.grad_norm for step in self._steps]))

    def metrics(self) -> dict[str, float]:
        """Return averages, extremes and counts by metric name."""
        loss, grad_norm = self.loss_and_grad_norm()
        skipped = sum(step.skipped for step in self._steps)
        totals = self._totals
        values = {
            "train/loss": loss,
            "train/policy_loss": totals.policy_loss / len(self.losses),
            "train/grad_norm": grad_norm,
            "train/skipped_steps": float(skipped),
            "train/optimizer_steps": float(len(self._steps) - skipped),
            "train/epochs": float(self.epochs),
        }
        if self._critic_steps:
            values["train/value_grad_norm"] = float(np.mean([step.grad_norm for step in self._critic_steps]))
        means = {name: totals.sums[name] / count for name, count in totals.counts.items()}
        return {**values, **means, **totals.maxima, **totals.minima}
