"""Sums over the tokens of one policy update, and the averages reported as its metrics."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpo_gsm8k.learner.objective import Objective
    from grpo_gsm8k.learner.optimizer import StepStats


class UpdateStats:
    """Accumulates over the tokens that took part in a forward pass; a metric without data is left out.

    What is added stays on the device until `read`: reading a number makes the host wait until the GPU has computed it.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.epochs = 0
        self._steps: list[StepStats] = []
        self._critic_steps: list[StepStats] = []
        self._policy_loss = 0.0  # sum over the optimizer steps
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._maxima: dict[str, float] = {}
        self._minima: dict[str, float] = {}
        self._unread: list[tuple[Callable[[str, float], None], str, torch.Tensor]] = []

    def add(self, output: Objective, on_policy_M: torch.Tensor | None) -> None:
        """Add one micro-batch; `on_policy_M` are the indices of tokens that the engine sampled with these weights.

        The gap between engine and learner is measured on those alone; None: there are none any more.
        """
        self._unread.append((self._add_policy_loss, "", output.policy_loss))
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

    def read(self) -> None:
        """Take what was added since the last call from the device, all at once."""
        if self._unread:
            values = torch.stack([value.detach().double() for _, _, value in self._unread]).tolist()
            for (take, name, _), value in zip(self._unread, values, strict=True):
                take(name, value)
            self._unread = []

    def add_step(self, loss: float, policy: StepStats, critic: StepStats | None) -> None:
        """Add one optimizer step, after everything of its micro-batches."""
        self.read()
        self.losses.append(loss)
        self._steps.append(policy)
        if critic is not None:
            self._critic_steps.append(critic)

    def total(self, name: str) -> tuple[float, int]:
        """Sum and number of tokens so far."""
        return self._sums[name], self._counts[name]

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
        values = {
            "train/loss": loss,
            "train/policy_loss": self._policy_loss / len(self.losses),
            "train/grad_norm": grad_norm,
            "train/skipped_steps": float(skipped),
            "train/optimizer_steps": float(len(self._steps) - skipped),
            "train/epochs": float(self.epochs),
        }
        if self._critic_steps:
            values["train/value_grad_norm"] = float(np.mean([step.grad_norm for step in self._critic_steps]))
        means = {name: self._sums[name] / count for name, count in self._counts.items() if count}
        return {**values, **means, **self._maxima, **self._minima}

    def _add(self, name: str, values_N: torch.Tensor) -> None:
        if len(values_N):
            self._unread.append((self._add_sum, name, values_N.sum()))
            self._counts[name] += len(values_N)

    def _maximum(self, name: str, values_N: torch.Tensor) -> None:
        if len(values_N):
            self._unread.append((self._take_maximum, name, values_N.max()))

    def _minimum(self, name: str, values_N: torch.Tensor) -> None:
        if len(values_N):
            self._unread.append((self._take_minimum, name, values_N.min()))

    def _add_policy_loss(self, _: str, value: float) -> None:
        self._policy_loss += value

    def _add_sum(self, name: str, value: float) -> None:
        self._sums[name] += value

    def _take_maximum(self, name: str, value: float) -> None:
        self._maxima[name] = max(self._maxima.get(name, 0.0), value)

    def _take_minimum(self, name: str, value: float) -> None:
        self._minima[name] = min(self._minima.get(name, math.inf), value)
