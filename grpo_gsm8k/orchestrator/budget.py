"""Budget of a run: time and money used, compared with the estimate."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.preflight.cost import MEASURED_UPDATES, Estimate, refine
from grpo_gsm8k.terminal.durations import dollars, duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpo_gsm8k.config import BudgetConfig


class RunBudget:
    """Counts wall time, including earlier sessions of the run, and its price."""

    def __init__(self, config: BudgetConfig, initial: Estimate | None, elapsed_s: Callable[[], float]) -> None:
        """`initial` is None if the model's shape is unknown; `elapsed_s` returns the run's wall time in seconds."""
        self._config = config
        self._initial = initial
        self._total = 0 if initial is None else initial.updates
        self._refined: Estimate | None = None
        self._elapsed_s = elapsed_s
        self._step_s: list[float] = []  # updates of this session
        self._usd_per_hour = config.usd_per_hour if initial is None else initial.usd_per_hour

    def set_total(self, updates: int) -> None:
        """Set the number of updates of the run, which the learner knows exactly."""
        self._total = updates

    def observe(self, step: int, step_s: float) -> str:
        """Count update `step`. Returns one line with a refined estimate after MEASURED_UPDATES updates, else ""."""
        self._step_s.append(step_s)
        if self._initial is None or len(self._step_s) != MEASURED_UPDATES:
            return ""
        self._refined = refine(replace(self._initial, updates=self._total), self._step_s, step, self._elapsed_s())
        price = "" if self._refined.usd is None else f", {dollars(self._refined.usd)}"
        whole = duration(3600 * self._refined.hours)
        return f"measured: {duration(self._refined.step_s)} per update, the run will take {whole}{price}"

    def used_up(self) -> str:
        """Return the limit that is reached, with its key; empty while there is budget left."""
        hours, usd = self._hours, self._usd
        if self._config.max_hours is not None and hours >= self._config.max_hours:
            return f"budget.max_hours={self._config.max_hours:g} is used up"
        if self._config.max_usd is not None and usd is not None and usd >= self._config.max_usd:
            return f"budget.max_usd={self._config.max_usd:g} is used up"
        return ""

    def summary(self) -> dict[str, Any]:
        """Return `estimate` and `outcome` for summary.json; times in seconds and hours, money in USD."""
        step_s = sum(self._step_s) / len(self._step_s) if self._step_s else None
        return {
            "estimate": {
                "initial": None if self._initial is None else asdict(self._initial),
                "refined": None if self._refined is None else asdict(self._refined),
            },
            "outcome": {
                "step_s": step_s,
                "updates": len(self._step_s),
                "hours": self._hours,
                "usd": self._usd,
                "usd_per_hour": self._usd_per_hour,
            },
        }

    @property
    def _hours(self) -> float:
        return self._elapsed_s() / 3600

    @property
    def _usd(self) -> float | None:
        return None if self._usd_per_hour is None else self._hours * self._usd_per_hour
