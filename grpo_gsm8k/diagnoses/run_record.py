"""What the diagnoses read: the records of one run, its configuration, and the machine."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Fewer updates are start-up: the learning rate still warms up, and a third of them is too few to compare.
MIN_UPDATES: Final = 10
# A change of a mean must exceed this many standard errors: noise alone does so once in 50 comparisons of short runs.
CERTAIN: Final = 3.0
ACCURACY_PARTS: Final = ("correct", "exact_text")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Records of one run; anything may be missing. Validations have keys without `val/`."""

    updates: Sequence[Mapping[str, Any]]  # ordered by step
    validations: Sequence[Mapping[str, Any]] = ()  # ordered by version
    events: Sequence[Mapping[str, Any]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)  # `machine` of manifest.json

    @property
    def fine_tuning(self) -> bool:
        """Whether this is supervised fine-tuning."""
        return self.config.get("command") == "sft"

    @property
    def lr_key(self) -> str:
        """Key of the learning rate."""
        return "sft.lr" if self.fine_tuning else "learner.lr"

    @property
    def long(self) -> bool:
        """Whether the run has enough updates for a trend."""
        return len(self.updates) >= MIN_UPDATES

    def setting(self, key: str) -> Any:
        """Return the value of a dotted key; None if the run's configuration does not have it."""
        value: Any = self.config
        for name in key.split("."):
            value = value.get(name) if hasattr(value, "get") else None
        return value

    def amount(self, key: str) -> float | None:
        """Return the value of a dotted key if it is a number."""
        return number(self.setting(key))

    def now(self, key: str) -> str:
        """Return a key with its present value, for an advice; the key alone if the value is unknown."""
        value = self.setting(key)
        return key if value is None else f"{key} (now {whole(value)})"

    def series(self, metric: str) -> list[float]:
        """Return the finite values of a metric, by update."""
        values = (number(record.get(metric)) for record in self.updates)
        return [value for value in values if value is not None]

    def late(self, metric: str) -> float | None:
        """Return the mean over the last third of a metric's updates; None if it has fewer than MIN_UPDATES."""
        values = self.series(metric)
        return statistics.fmean(last_third(values)) if len(values) >= MIN_UPDATES else None

    def late_median(self, metric: str) -> float | None:
        """Return the median over the last third, which single spikes do not move; None as for `late`."""
        values = self.series(metric)
        return statistics.median(last_third(values)) if len(values) >= MIN_UPDATES else None

    def early(self, metric: str) -> float | None:
        """Return the mean over the first third of a metric's updates; None as for `late`."""
        values = self.series(metric)
        return statistics.fmean(first_third(values)) if len(values) >= MIN_UPDATES else None

    def change(self, metric: str) -> float:
        """Return `change_of` a metric."""
        return change_of(self.series(metric))

    def over_time(self, metric: str) -> float | None:
        """Return the mean of a share of time, weighted by the updates' wall times.

        None for a run that is not `long`, and unless at least half of the updates have the metric.
        """
        pairs = [(number(r.get(metric)), number(r.get("time/step_s"))) for r in self.updates]
        known = [(value, seconds) for value, seconds in pairs if value is not None and seconds]
        if not self.long or len(known) < len(self.updates) / 2:
            return None
        return math.fsum(v * s for v, s in known) / math.fsum(s for _, s in known)

    def right(self) -> list[float]:
        """Return the share of right completions by update; empty if no reward part measures it."""
        for part in ACCURACY_PARTS:
            if found := self.series(f"train/reward_{part}"):
                return found
        return [1 - value for value in self.series("train/reward_wrong")]

    def late_right(self) -> float | None:
        """Return the share of right completions over the last third of the updates; None if unknown."""
        found = self.right()
        return statistics.fmean(last_third(found)) if len(found) >= MIN_UPDATES else None

    @property
    def improves(self) -> bool:
        """Whether training accuracy rises, or the last validation's interval is above the first one's."""
        return change_of(self.right()) > 0 or validation_change(self.validations) > 0


def machine_of(manifest: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the machine of the last start that manifest.json records; empty if there is none."""
    starts = [manifest, *(manifest.get("resumes") or ())] if manifest else []
    found: Mapping[str, Any] = next((start["machine"] for start in reversed(starts) if start.get("machine")), {})
    return found


def number(value: object) -> float | None:
    """Return a finite number as a float; None for anything else, such as a missing value or a text."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def first_third(values: Sequence[float]) -> Sequence[float]:
    """Return the first third of the values, at least one."""
    return values[: max(1, len(values) // 3)]


def last_third(values: Sequence[float]) -> Sequence[float]:
    """Return the last third of the values, at least one."""
    return values[-max(1, len(values) // 3) :]


def change_of(values: Sequence[float]) -> float:
    """Return the last third's mean minus the first third's; 0 if it is within CERTAIN standard errors, or too short.

    The noise is estimated from differences of successive values, which a trend hardly changes (von Neumann, 1941).
    """
    if len(values) < MIN_UPDATES:
        return 0.0
    before, after = first_third(values), last_third(values)
    variance = statistics.fmean((b - a) * (b - a) for a, b in pairwise(values)) / 2  # ** raises on overflow
    error = math.sqrt(variance * (1 / len(before) + 1 / len(after)))
    difference = statistics.fmean(after) - statistics.fmean(before)
    return difference if abs(difference) > CERTAIN * error else 0.0


def validation_change(validations: Sequence[Mapping[str, Any]]) -> int:
    """Return 1 if the last validation's 95 % interval is above the first one's, -1 if below, 0 if neither is known."""
    return interval_change(validations[0], validations[-1]) if len(validations) > 1 else 0


def interval_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """Compare the 95 % intervals of two validations, as `validation_change` does."""
    low_before, high_before = (number(before.get(f"accuracy_ci_{end}")) for end in ("low", "high"))
    low_after, high_after = (number(after.get(f"accuracy_ci_{end}")) for end in ("low", "high"))
    if low_before is None or high_before is None or low_after is None or high_after is None:
        return 0
    return (low_after > high_before) - (high_after < low_before)


def percent(share: float) -> str:
    """Return a share in percent, without decimals from 10 % on."""
    digits = 0 if share >= 0.0995 or 100 * share == round(100 * share) else 1
    return f"{100 * share:.{digits}f} %"


def whole(value: Any) -> str:
    """Return a number without a needless `.0`; other values as they are."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)
