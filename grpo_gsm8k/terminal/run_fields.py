"""Labels and texts of a run's measurements, for all displays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpo_gsm8k.terminal.durations import dollars, duration

if TYPE_CHECKING:
    from grpo_gsm8k.terminal.run_state import Metrics, RunState

# Label, and the metrics that it stands for: the first one that the run has.
NUMBERS = (
    ("loss", ("train/loss",), ".3g"),
    ("token accuracy", ("train/token_accuracy",), ".1%"),
    ("KL (reference)", ("train/kl_reference",), ".3g"),
    ("KL (update)", ("train/approx_kl", "train/kl_behaviour"), ".3g"),
    ("entropy", ("train/entropy",), ".3g"),
    ("length", ("rollout/length_mean",), ".0f"),
    ("learning rate", ("train/lr",), ".3g"),
    ("tokens/s", ("rollout/tokens_per_s", "train/tokens_per_s"), ".0f"),
)


def fields(state: RunState) -> list[tuple[str, str]]:
    """Return label and text of the measurements of the newest update that have one number or two."""
    metrics = state.metrics
    found = []
    for label, keys, form in NUMBERS:
        key = next((key for key in keys if key in metrics), None)
        if key is not None:
            unit = " tokens" if label == "length" else ""
            found.append((label, number(metrics[key], form) + unit))
    return [*found, *_staleness(metrics), *_idle(metrics)]


def _staleness(metrics: Metrics) -> list[tuple[str, str]]:
    if "rollout/staleness_mean" not in metrics:
        return []
    mean, largest = metrics["rollout/staleness_mean"], metrics.get("rollout/staleness_max")
    return [("staleness", f"{number(mean, '.1f')}, at most {number(largest, '.0f')}")]


def _idle(metrics: Metrics) -> list[tuple[str, str]]:
    keys = (("actor", "time/actor_idle_frac"), ("learner", "time/learner_idle_frac"))
    parts = [f"{name} {number(metrics[key], '.0%')}" for name, key in keys if key in metrics]
    return [("idle", ", ".join(parts))] if parts else []


def times(state: RunState, now: float) -> str:
    """Return time so far, time left and cost in one line."""
    parts = [duration(state.elapsed(now))]
    if state.update < state.total and state.eta is not None:
        parts.append(f"ETA {duration(state.eta)}")
    usd = state.usd(now)
    return " | ".join([*parts, *([] if usd is None else [dollars(usd)])])


def accuracy(metrics: Metrics, prefix: str = "val/") -> str:
    """Format an accuracy with its 95 % interval: `81.6 % [78.1, 85.0]`."""
    value, low, high = (metrics.get(f"{prefix}accuracy{end}") for end in ("", "_ci_low", "_ci_high"))
    shown = percent(value)
    return shown if low is None or high is None else f"{shown} [{100 * low:.1f}, {100 * high:.1f}]"


def percent(value: float | None) -> str:
    """Format a fraction: `81.6 %`; `-` if unknown."""
    return "-" if value is None else f"{100 * value:.1f} %"


def number(value: float | None, form: str) -> str:
    """Format a number; `-` if unknown."""
    if value is None:
        return "-"
    return f"{format(value, form).removesuffix('%')} %" if form.endswith("%") else format(value, form)
