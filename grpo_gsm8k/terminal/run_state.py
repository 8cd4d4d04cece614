"""What a display shows of a run: an immutable state, built from records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.terminal.samples import ShownSample

Metrics = Mapping[str, float | None]

ETA_WINDOW = 20  # the ETA uses the mean duration of this many recent updates
CURVES = (("reward", "train/reward_mean"), ("perplexity", "train/perplexity"))  # the first that a run has


@dataclass(frozen=True, slots=True)
class RunState:
    """State of a run's display. `curve` and `validations` are in order; times are of one monotonic clock."""

    total: int
    started: float  # of this process, minus the run's earlier sessions
    usd_per_hour: float | None = None
    update: int = 0
    metrics: Metrics = field(default_factory=dict)
    curve: tuple[float, ...] = ()
    validations: tuple[tuple[int, Metrics], ...] = ()
    update_seconds: tuple[float, ...] = ()
    phases: tuple[tuple[str, float], ...] = ()  # in progress: name and start
    samples: tuple[ShownSample, ...] = ()

    def with_update(self, update: int, metrics: Metrics, samples: Sequence[ShownSample] = ()) -> RunState:
        """Return the state after a policy update."""
        seconds = metrics.get("time/step_s")
        return replace(
            self,
            update=update,
            metrics=dict(metrics),
            curve=(*self.curve, *_curve([metrics])),
            update_seconds=(*self.update_seconds, *([] if seconds is None else [seconds]))[-ETA_WINDOW:],
            samples=tuple(samples) or self.samples,
        )

    def with_validation(self, version: int, metrics: Metrics, samples: Sequence[ShownSample] = ()) -> RunState:
        """Return the state after a validation; its samples are shown if there are none of updates."""
        others = [entry for entry in self.validations if entry[0] != version]
        validations = tuple(sorted([*others, (version, dict(metrics))], key=lambda entry: entry[0]))
        of_update = any(sample.of == "update" for sample in self.samples)
        return replace(self, validations=validations, samples=self.samples if of_update else tuple(samples))

    def with_history(self, records: Sequence[Mapping[str, Any]], started: float) -> RunState:
        """Return the state that the run's remaining records give, after a resume or a restart of the learner."""
        updates = [record for record in records if "step" in record]
        last: Mapping[str, Any] = updates[-1] if updates else {}
        found = [(int(record["val/version"]), record) for record in records if "val/version" in record]
        return replace(
            self,
            started=started,
            update=int(last.get("step", 0)),
            metrics=last,
            curve=tuple(_curve(updates)),
            validations=tuple(sorted(found, key=lambda entry: entry[0])),
            update_seconds=(),
            samples=(),
        )

    def with_total(self, updates: int) -> RunState:
        """Return the state with another number of updates."""
        return replace(self, total=updates)

    def with_phase(self, name: str, started: float) -> RunState:
        """Return the state with a phase in progress."""
        return replace(self, phases=(*self.without_phase(name).phases, (name, started)))

    def without_phase(self, name: str) -> RunState:
        """Return the state without a phase."""
        return replace(self, phases=tuple(phase for phase in self.phases if phase[0] != name))

    @property
    def curve_name(self) -> str:
        """Label of the curve."""
        return next((label for label, key in CURVES if key in self.metrics), CURVES[0][0])

    @property
    def eta(self) -> float | None:
        """Estimated seconds for the remaining updates; None if unknown."""
        if not self.update_seconds:
            return None
        return max(self.total - self.update, 0) * sum(self.update_seconds) / len(self.update_seconds)

    def elapsed(self, now: float) -> float:
        """Seconds of the run so far, including earlier sessions."""
        return max(now - self.started, 0.0)

    def usd(self, now: float) -> float | None:
        """Cost so far; None without a price."""
        return None if self.usd_per_hour is None else self.elapsed(now) / 3600 * self.usd_per_hour


def _curve(records: Sequence[Mapping[str, Any]]) -> list[float]:
    values = (next((record.get(key) for _, key in CURVES if key in record), None) for record in records)
    return [value for value in values if value is not None]
