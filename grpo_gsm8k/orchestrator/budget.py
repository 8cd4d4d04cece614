"""What a run has used of its budget, and how far that is from what was expected."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from grpo_gsm8k.preflight.cost import MEASURED_UPDATES, Estimate, refine

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpo_gsm8k.config import BudgetConfig


class Meter:
    """Counts wall time, earlier sessions of the run included, and the money that it costs."""

    def __init__(self, budget: BudgetConfig, initial: Estimate | None, elapsed_s: Callable[[], float]) -> None:
        """`initial` is None where nothing is known of the model; `elapsed_s` says how long the run has taken."""
        self._budget = budget
        self._initial = initial
        self._refined: Estimate | None = None
        self._elapsed_s = elapsed_s
        self._seconds: list[float] = []  # of the updates of this session
        self._usd_per_hour = budget.usd_per_hour if initial is None else initial.usd_per_hour

    def observe(self, step: int, step_s: float) -> str:
        """Count update `step`. Returns a line once there are enough of them to estimate anew, else nothing."""
        self._seconds.append(step_s)
        if self._initial is None or len(self._seconds) != MEASURED_UPDATES:
            return ""
        self._refined = refine(self._initial, self._seconds, step, self._elapsed_s())
        price = "" if self._refined.usd is None else f", ${self._refined.usd:.2f}"
        return f"measured: {self._refined.step_s:.3g} s an update, the run will take {self._refined.hours:.2g} h{price}"

    def used_up(self) -> str:
        """Which limit is reached, with its key; empty while there is something left."""
        hours, usd = self._hours, self._usd
        if self._budget.max_hours is not None and hours >= self._budget.max_hours:
            return f"budget.max_hours={self._budget.max_hours:g} is used up"
        if self._budget.max_usd is not None and usd is not None and usd >= self._budget.max_usd:
            return f"budget.max_usd={self._budget.max_usd:g} is used up"
        return ""

    def summary(self) -> dict[str, Any]:
        """`estimate` and `outcome` for summary.json; times in seconds and hours, money in USD."""
        step_s = sum(self._seconds) / len(self._seconds) if self._seconds else None
        return {
            "estimate": {
                "initial": None if self._initial is None else asdict(self._initial),
                "refined": None if self._refined is None else asdict(self._refined),
            },
            "outcome": {
                "step_s": step_s,
                "updates": len(self._seconds),
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
