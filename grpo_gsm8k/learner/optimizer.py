"""AdamW on float32 master weights, a warm-up and cosine schedule, and a guard against non-finite gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from grpo_gsm8k.errors import NonFiniteError

if TYPE_CHECKING:
    from grpo_gsm8k.config import LearnerConfig


def lr_scale(update: int, total: int, warmup: int, final_fraction: float) -> float:
    """Factor on the learning rate of update 0 <= `update` < `total`.

    Linear warm-up over `warmup` updates (never more than the run has), then a cosine down to `final_fraction`.
    A pure function of the update, so there is no scheduler state to lose.
    """
    warmup = min(warmup, total)
    if update < warmup:
        return (update + 1) / warmup
    progress = (update - warmup) / max(1, total - 1 - warmup)
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@dataclass(frozen=True, slots=True)
class StepStats:
    """One optimizer step. `grad_norm` is before clipping."""

    grad_norm: float
    skipped: bool


class Optimizer:
    """AdamW whose state is addressed by parameter name."""

    def __init__(self, parameters: list[tuple[str, torch.nn.Parameter]], config: LearnerConfig) -> None:
        """Weight decay is left out for vectors (norms, biases) and embeddings."""
        self._config = config
        self._named = parameters
        decayed = [p for name, p in parameters if p.ndim > 1 and "embed" not in name]
        plain = [p for name, p in parameters if not (p.ndim > 1 and "embed" not in name)]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self._adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas)
        self.nonfinite_in_a_row = 0

    def step(self, lr: float) -> StepStats:
        """Clip, apply and clear the gradients.

        A non-finite gradient leaves parameters and optimizer state untouched; too many in a row raise NonFiniteError.
        """
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in self._named], self._config.max_grad_norm)
        finite = bool(torch.isfinite(norm))
        if finite:
            for group in self._adamw.param_groups:
                group["lr"] = lr
            self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        self.nonfinite_in_a_row = 0 if finite else self.nonfinite_in_a_row + 1
        if self.nonfinite_in_a_row >= self._config.max_nonfinite_steps:
            raise NonFiniteError(
                f"{self.nonfinite_in_a_row} optimizer steps in a row had a non-finite gradient: lower learner.lr, or "
                "look at the rollouts of the last steps"
            )
        return StepStats(float(norm), skipped=not finite)

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Flat state: `<parameter>/exp_avg`, `/exp_avg_sq`, `/step`."""
        state = self._adamw.state
        return {
            f"{name}/{key}": value.contiguous() for name, p in self._named for key, value in state.get(p, {}).items()
        }

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Inverse of `state_tensors`; parameters that were never stepped have no state."""
        for name, p in self._named:
            keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{name}/{key}" in tensors]
            if keys:
                self._adamw.state[p] = {
                    key: tensors[f"{name}/{key}"].to(p.device if key != "step" else "cpu") for key in keys
                }
