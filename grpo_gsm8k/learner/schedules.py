"""Numbers that change from update to update: learning rates and the coefficient of the KL to the reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from grpo_gsm8k.algorithms.kl import adapted_coefficient

if TYPE_CHECKING:
    from grpo_gsm8k.config import LearnerConfig, PolicyGradientConfig, Schedule

WSD_DECAY = 0.2  # share of the updates in which the rate decays, unless configured


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rates and KL coefficient of one policy update."""

    lr: float
    critic_lr: float
    kl_coef: float

    def metrics(self) -> dict[str, float]:
        """Return the rates by metric name; a KL coefficient of 0 is left out."""
        return {"train/lr": self.lr, **({"train/kl_coef": self.kl_coef} if self.kl_coef else {})}


@dataclass(frozen=True, slots=True)
class Decay:
    """How the learning rate falls after the warm-up; see `learner.schedule`."""

    final_fraction: float
    schedule: Schedule = "cosine"
    decay_fraction: float | None = None

    @classmethod
    def of(cls, config: LearnerConfig) -> Self:
        """Return the configured decay."""
        return cls(config.final_lr_fraction, config.schedule, config.decay_fraction)


def lr_scale(update: int, total: int, warmup: int, decay: Decay) -> float:
    """Factor on the learning rate of update 0 <= `update` < `total`.

    Linear warm-up over `warmup` updates (at most the length of the run), then the schedule: a cosine or a line down to
    `final_fraction` in the last update, a constant, or WSD (warmup-stable-decay, arXiv:2404.06395): a constant, and a
    line in the last `decay_fraction` of all updates. It is a pure function of the update, so there is no scheduler
    state to save.
    """
    warmup = min(warmup, total)
    if update < warmup:
        return (update + 1) / warmup
    progress = min(1.0, (update - warmup) / max(1, total - 1 - warmup))
    floor = decay.final_fraction
    match decay.schedule:
        case "cosine":
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return floor + (1 - floor) * (1 - progress)
        case "constant":
            return 1.0
        case "wsd":
            fraction = WSD_DECAY if decay.decay_fraction is None else decay.decay_fraction
            length = min(max(1, round(fraction * total)), total - warmup)
            return floor + (1 - floor) * min(1.0, (total - 1 - update) / length)


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
