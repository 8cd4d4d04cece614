"""The coefficient of the KL to the reference: fixed, or steered to a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.algorithms.kl import adapted_coefficient

if TYPE_CHECKING:
    from grpo_gsm8k.config import PolicyGradientConfig


class KlController:
    """Holds the coefficient between updates."""

    def __init__(self, config: PolicyGradientConfig, coefficient: float | None) -> None:
        """`coefficient` is a checkpoint's; None: start with the configured one."""
        self._config = config
        self.coefficient = config.kl.coef if coefficient is None else coefficient

    def observe(self, measured: float | None) -> None:
        """Take note of an update's mean KL in nats per token; None when no token was trained on."""
        kl = self._config.kl
        if kl.target is not None and measured is not None:
            self.coefficient = adapted_coefficient(
                self.coefficient, measured, kl.target, self._config.episodes_per_update, kl.horizon
            )
