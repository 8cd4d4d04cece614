"""Formatting of numbers and of comparisons as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grpo_gsm8k.evaluation.statistics import comparison
from grpo_gsm8k.evaluation.statistics.comparison import Verdict
from grpo_gsm8k.report.material import Pair
from grpo_gsm8k.terminal import durations

DASH = "–"
VERDICTS = {Verdict.BETTER: "higher", Verdict.WORSE: "lower", Verdict.NOISE: "noise"}


def percent(value: float | None) -> str:
    """Format a fraction: `86.1 %`."""
    return DASH if value is None else f"{100 * value:.1f} %"


def points(value: float) -> str:
    """Format a difference of fractions in percentage points: `+3.2`."""
    shown = f"{100 * value:+.1f}"
    return "0.0" if shown in {"+0.0", "-0.0"} else shown.replace("-", "−")


def number(value: float | None) -> str:
    """Format with three significant digits, and with all digits before the decimal point."""
    if value is None:
        return DASH
    if abs(value) < 1e9 and (float(value).is_integer() or abs(value) >= 100):
        return f"{value:.0f}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


def count(value: float) -> str:
    """Format a count: `1.23 million`, `45.6 thousand`, `789`."""
    for size, name in ((1e9, "billion"), (1e6, "million"), (1e4, "thousand")):
        if value >= size:
            return f"{value / (1e3 if name == 'thousand' else size):.3g} {name}"
    return f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """Format seconds as the terminal does; a dash if unknown."""
    return DASH if seconds is None else durations.duration(seconds)


def dollars(value: float) -> str:
    """Format a price: `$0.02`, `under $0.01`."""
    return f"${value:,.2f}" if value >= 0.005 else "under $0.01" if value else "$0.00"


def accuracy(validation: Mapping[str, Any] | None) -> str:
    """Format the accuracy of a validation with its interval: `86.1 % [83.0, 89.1]`."""
    if validation is None or validation.get("accuracy") is None:
        return DASH
    low, high = (validation.get(f"accuracy_ci_{end}") for end in ("low", "high"))
    return percent(validation["accuracy"]) + ("" if low is None or high is None else f" {interval(low, high)}")


def interval(low: float, high: float) -> str:
    """Format an interval in percent: `[83.0, 89.1]`."""
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def p_value(value: float) -> str:
    """Format a p value: `p = 0.012`, `p < 0.001`."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def describe_pair(pair: Pair) -> str:
    """Describe a paired comparison: verdict, difference with interval, p value, and number of items."""
    found, test = pair.found, p_value(pair.found.p_value)
    if (corrected := p_value(pair.p_holm)) != test:
        test += f", corrected {corrected.removeprefix('p ').removeprefix('= ')}"
    change = found.difference
    shown = f"{points(change.estimate)} points [{points(change.low)}, {points(change.high)}]; {test}"
    verdict = comparison.verdict(change, pair.p_holm)
    text = f"{VERDICTS[verdict]}: {shown}; paired on {found.items} items"
    if verdict is Verdict.NOISE and found.detectable is not None:
        text += f", which can detect differences of at least {100 * found.detectable:.1f} points"
    return text
