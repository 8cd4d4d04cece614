"""Statistics of a run from its metrics.jsonl and events.jsonl: the numbers in summary.json."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def summarize_run(records: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compute the statistics in summary.json. Means are weighted by wall time."""
    steps = [record for record in records if "step" in record]
    validations = validations_of(records)
    first, last = (validations[0], validations[-1]) if validations else (None, None)
    kinds = [event["kind"] for event in events]
    return {
        "first_validation": first,
        "last_validation": last,
        "best_validation": best_of(validations),
        "change": validation_change(first, last),
        "tokens_per_s_mean": _mean_over_time(steps, "rollout/tokens_per_s")
        or _mean_over_time(steps, "train/tokens_per_s"),
        "actor_idle_frac_mean": _mean_over_time(steps, "time/actor_idle_frac"),
        "learner_idle_frac_mean": _mean_over_time(steps, "time/learner_idle_frac"),
        "restarts": {worker: kinds.count(f"{worker}_restarted") for worker in ("actor", "learner")},
    }


def validation_change(first: Mapping[str, Any] | None, last: Mapping[str, Any] | None) -> str | None:
    """Return `higher` or `lower` if the 95 % intervals of two validations are disjoint, `none shown` if they overlap.

    None without two different validations that have intervals. Disjoint intervals are a stricter condition than a
    test of the difference, so `none shown` does not mean that there is none.
    """
    if first is None or last is None or first["version"] == last["version"]:
        return None
    ends = [record.get(f"accuracy_ci_{end}") for record in (first, last) for end in ("low", "high")]
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):
        return None
    first_low, first_high, last_low, last_high = known
    if last_low > first_high:
        return "higher"
    return "lower" if last_high < first_low else "none shown"


def best_of(validations: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the validation with the highest accuracy; the earliest on a tie."""
    measured = [record for record in validations if record.get("accuracy") is not None]
    return max(measured, key=lambda record: (record["accuracy"], -record["version"]), default=None)


def validations_of(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the validation records of metrics.jsonl ordered by version, keys without `val/`."""
    found = [record for record in records if "val/version" in record]
    found.sort(key=lambda record: record["val/version"])
    return [{name.removeprefix("val/"): value for name, value in record.items()} for record in found]


def seconds_of_sessions(events: Sequence[Mapping[str, Any]]) -> float:
    """Return the total wall time of a run's processes, each from its start to its last event."""
    total = 0.0
    previous: float | None = None
    for event in events:
        if event["kind"] != "start" and previous is not None:
            total += event["time"] - previous
        previous = event["time"]
    return total


def _mean_over_time(steps: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Mean weighted by the updates' wall times: total tokens over total time, not a mean of rates."""
    pairs = [(record.get(key), record.get("time/step_s")) for record in steps]
    known = [(value, seconds) for value, seconds in pairs if value is not None and seconds]
    total = math.fsum(seconds for _, seconds in known)
    return math.fsum(value * seconds for value, seconds in known) / total if total else None
