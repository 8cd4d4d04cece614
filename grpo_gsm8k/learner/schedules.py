"""Numbers that change from update to update: learning rates and the coefficient of the KL to the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.algorithms.kl import adapted_coefficient

if TYPE_CHECKING:
    from grpo_gsm8k.config import PolicyGradientConfig


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rates and KL coefficient of one policy update."""

    lr: float
    critic_lr: float
    kl_coef: float

    def metrics(self) -> dict[str, float]:
        """Return the rates by metric name; a KL coefficient of 0 is left out."""
        return {"train/lr": self.lr, **({"train/kl_coef": self.kl_coef} if self.kl_coef else {})}


def lr_scale(update: int, total: int, warmup: int, final_fraction: float) -> float:
    """Factor on the learning rate of update 0 <= `update` < `total`.

    Linear warm-up over `warmup` updates (at most the length of the run), then a cosine down to `final_fraction`. It is
    a pure function of the update, so there is no scheduler state to save.
    """
    warmup = min(warmup, total)
    if update < warmup:
        return (update + 1) / warmup
    progress = (update - warmup) / max(1, total - 1 - warmup)
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class KlController:
    """Keeps the coefficient of the KL to the reference: fixed, or adapted to reach `kl.target`."""

    def __init__(self, config: PolicyGradientConfig, coefficient: float | None) -> None:
        """Start from `coefficient`, that of a checkpoint, or from the configured one if it is None."""
        self._config = config
        self.coefficient = config.kl.coef if coefficient is None else coefficient

    def observe(self, measured: float | None) -> None:
        """Adapt the coefficient to an update's mean KL in nats per token; None if no token was trained on."""
        kl = self._config.kl
        if kl.target is not None and measured is not None:
            self.coefficient = adapted_coefficient(
                self.coefficient, measured, kl.target, self._config.episodes_per_update, kl.horizon
            )
