"""Figures of evaluations: accuracy bars, and pass@k against k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grpo_gsm8k.report import collect, eval_tables, words
from grpo_gsm8k.report.figures import PALETTE, axes, band, drop_none, escaped, style, wrap_label
from grpo_gsm8k.report.material import Figure, Run

Bar = tuple[float, float | None, float | None]  # accuracy, and the ends of its interval
OVER_TEMPERATURES = (
    ("right at any temperature", "accuracy", ""),
    ("the same, punctuation-free", "accuracy_punctuation_free", "punctuation_free_"),
    ("majority of all completions", "majority", "majority_"),
)


def accuracy_bars(runs: Sequence[Run]) -> list[Figure]:
    """Plot the accuracies of evaluations with intervals: a group per model and way, a bar per temperature."""
    bars: dict[str, dict[str, Bar]] = {}
    for run in runs:
        for result in eval_tables.results_of(run):
            bar = _bar(result, "accuracy", "")
            if bar is not None:
                name = f"temperature {float(result['temperature']):g}"
                bars.setdefault(name, {})[_label(run, result, runs)] = bar
    if not bars:
        return []
    caption = "Accuracy by model, way of asking and temperature, with 95 % intervals over the problems."
    return [_bars("accuracies", "Accuracy", caption, bars)]


def over_temperatures_bars(runs: Sequence[Run]) -> list[Figure]:
    """Plot what all completions of a model reach together; empty unless a problem has several completions."""
    bars: dict[str, dict[str, Bar]] = {}
    for run in runs:
        for result in eval_tables.with_several_completions(run):
            for name, key, prefix in OVER_TEMPERATURES:
                bar = _bar(result, key, prefix)
                if bar is not None:
                    bars.setdefault(name, {})[_label(run, result, runs)] = bar
    if not bars:
        return []
    caption = (
        "All temperatures and samples of a model together, with 95 % intervals over the problems: right at least once, "
        "and the most common answer is right."
    )
    return [_bars("over-temperatures", "All temperatures together", caption, bars)]


def pass_at_curves(runs: Sequence[Run]) -> list[Figure]:
    """Plot pass@k against k for settings with several samples, at most one per color of the palette."""
    lines: dict[str, list[tuple[float, float, float | None, float | None]]] = {}
    for run in runs:
        for result in eval_tables.results_of(run):
            if (result.get("samples") or 1) > 1 and result.get("pass_at"):
                name = f"{_label(run, result, runs)}, T={float(result['temperature']):g}"
                lines[name] = _curve(result)
    if not lines:
        return []
    shown = dict(list(lines.items())[: len(PALETTE)])
    data = [trace for index, (name, rows) in enumerate(shown.items()) for trace in band(name, index, rows)]
    ks = sorted({row[0] for rows in shown.values() for row in rows})
    layout = axes("k, samples per problem", "pass@k", tickformat=".0%")
    layout["xaxis"] |= {"type": "log", "tickvals": ks, "ticktext": [f"{k:g}" for k in ks]}
    caption = "Probability that one of k samples is right; the bands are 95 % intervals over the problems."
    if len(lines) > len(shown):
        caption += f" The first {len(shown)} of {len(lines)} settings."
    text = tuple(
        f"{name}: " + "; ".join(f"{words.percent(y)} at {k:g}" for k, y, _, _ in shown[name]) for name in shown
    )
    legend = tuple((name, style(index)["color"]) for index, name in enumerate(shown))
    return [Figure("pass-at-k", "Pass@k", caption, text, tuple(data), layout, legend, 380)]


def _curve(result: Mapping[str, Any]) -> list[tuple[float, float, float | None, float | None]]:
    ends = result.get("pass_at_ci") or {}
    rows = [(float(k), float(value), *ends.get(k, (None, None))) for k, value in result["pass_at"].items()]
    return sorted(rows)


def _label(run: Run, result: Mapping[str, Any], runs: Sequence[Run]) -> str:
    name = f"{collect.short_model(str(result['model']))}, {result['prompting']}"
    return name if len(runs) == 1 else f"{run.name}: {name}"


def _bar(found: Mapping[str, Any], name: str, prefix: str) -> Bar | None:
    value = found.get(name)
    return None if value is None else (float(value), found.get(f"{prefix}ci_low"), found.get(f"{prefix}ci_high"))


def _bars(figure_id: str, title: str, caption: str, bars: Mapping[str, Mapping[str, Bar]]) -> Figure:
    """Return horizontal bars: a trace per name, a group per label."""
    labels = list(dict.fromkeys(label for found in bars.values() for label in found))
    data = [_trace(name, index, labels, found) for index, (name, found) in enumerate(bars.items())]
    text = tuple(
        f"{label}: " + "; ".join(f"{name} {_in_words(found[label])}" for name, found in bars.items() if label in found)
        for label in labels
    )
    layout = {
        "barmode": "group",
        "bargap": 0.25,
        "xaxis": {"tickformat": ".0%", "range": [0, 1], "dtick": 0.25, "title": {"text": "share of the problems"}},
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True, "showgrid": False},
    }
    legend = tuple((name, style(index)["color"]) for index, name in enumerate(bars))
    lines = max(wrap_label(label).count("<br>") + 1 for label in labels)
    height = 90 + len(labels) * max(48, 20 + 16 * len(bars), 10 + 16 * lines)
    return Figure(figure_id, title, caption, text, tuple(data), layout, legend, height)


def _trace(name: str, index: int, labels: Sequence[str], found: Mapping[str, Bar]) -> dict[str, Any]:
    rows = [found.get(label, (None, None, None)) for label in labels]
    above = [None if y is None or high is None else high - y for y, _, high in rows]
    below = [None if y is None or low is None else y - low for y, low, _ in rows]
    known = any(value is not None for value in above)
    error = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.2, "width": 3}
    return drop_none(
        {
            "type": "bar",
            "orientation": "h",
            "name": escaped(name),
            "y": [wrap_label(label) for label in labels],
            "x": [y for y, _, _ in rows],
            "error_x": error if known else None,
            "marker": {"color": style(index)["color"]},
            "customdata": [
                words.interval(low, high) if low is not None and high is not None else "" for _, low, high in rows
            ],
            "hovertemplate": f"%{{y}}<br>{escaped(name)}: %{{x:.1%}} %{{customdata}}<extra></extra>",
        }
    )


def _in_words(bar: Bar) -> str:
    value, low, high = bar
    return words.accuracy({"accuracy": value, "accuracy_ci_low": low, "accuracy_ci_high": high})
