"""The figures of a report as plotly JSON; pure functions of the collected material."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grpo_gsm8k.report import collect, eval_tables, words
from grpo_gsm8k.report.material import KIND_NAMES, KINDS, AnswerSet, Figure, Key, Run

# Okabe and Ito's palette, without the yellow, which is too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F")
DASHES = ("solid", "dash", "dot", "dashdot")
KIND_COLORS = {"correct": "#009E73", "logic": "#D55E00", "format": "#E69F00", "truncated": "#7F7F7F"}
WRONG, RIGHT = "#111111", "#009E73"
LABEL_WIDTH = 18
Point = tuple[float, float, float | None, float | None]  # x, y, and the ends of the interval


def style(index: int) -> dict[str, Any]:
    """Return color and dash of the n-th line; colors repeat with another dash."""
    return {"color": PALETTE[index % len(PALETTE)], "dash": DASHES[index // len(PALETTE) % len(DASHES)]}


def shade(index: int) -> str:
    """Return the color of the area that belongs to the n-th line."""
    color = style(index)["color"]
    return "rgba({},{},{},0.16)".format(*(int(color[at : at + 2], 16) for at in (1, 3, 5)))


def band(
    name: str, index: int, rows: Sequence[tuple[float, float, float | None, float | None]]
) -> list[dict[str, Any]]:
    """Return traces of a line through (x, y), and of the area between low and high."""
    xs, line = [row[0] for row in rows], style(index)
    area = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    return [
        {**area, "x": xs, "y": [row[2] for row in rows]},
        {**area, "x": xs, "y": [row[3] for row in rows], "fill": "tonexty", "fillcolor": shade(index)},
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": escaped(name),
            "x": xs,
            "y": [row[1] for row in rows],
            "line": {**line, "width": 2},
            "marker": {"size": 6},
            "hovertemplate": f"{escaped(name)}<br>%{{x:.4~g}}: %{{y:.1%}}<extra></extra>",
        },
    ]


def escaped(text: str) -> str:
    """Escape a text for plotly, which interprets some HTML."""
    return html.escape(text, quote=False)


def axes(x: str, y: str, **more: Any) -> dict[str, Any]:
    """Return a layout with two titled axes."""
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}, **more}}


def learning_curves(runs: Sequence[Run]) -> list[Figure]:
    """Plot validation accuracy against updates, tokens and time, with 95 % intervals; empty without validations."""
    shown = [(index, run) for index, run in enumerate(runs) if run.validations]
    if not shown:
        return []
    found = []
    for name, title, x_axis in (
        ("updates", "updates", lambda run: lambda version: float(version)),
        ("tokens", "training tokens", lambda run: _totals(run, _step_tokens)),
        ("minutes", "minutes of training", lambda run: _totals(run, _step_minutes)),
    ):
        data = [trace for i, run in shown for trace in band(run.name, i, _curve(run, x_axis(run)))]
        text = tuple(_curve_words(run, title, x_axis(run)) for _, run in shown)
        layout = axes(title, "accuracy", tickformat=".0%")
        caption = f"Validation accuracy against {title}; the bands are 95 % intervals over the validation items."
        legend = run_legend(runs)
        found.append(Figure(f"curve-{name}", f"Accuracy by {title}", caption, text, tuple(data), layout, legend, 340))
    return found


def run_legend(runs: Sequence[Run]) -> tuple[tuple[str, str], ...]:
    """Return names and colors; none for a single run."""
    return tuple((run.name, style(index)["color"]) for index, run in enumerate(runs)) if len(runs) > 1 else ()


def _curve(run: Run, x_of: Callable[[int], float]) -> list[Point]:
    known = [v for v in run.validations if v.get("accuracy") is not None]
    return [
        (x_of(int(v["version"])), v["accuracy"], v.get("accuracy_ci_low"), v.get("accuracy_ci_high")) for v in known
    ]


def _curve_words(run: Run, title: str, x_of: Callable[[int], float]) -> str:
    parts = [f"{words.accuracy(v)} at {words.number(x_of(int(v['version'])))}" for v in run.validations]
    return f"{run.name}: {'; '.join(parts)} {title}"


def _totals(run: Run, amount: Callable[[Mapping[str, Any]], float]) -> Callable[[int], float]:
    """Return a function that maps a version to the sum over the updates up to it."""
    steps = [(int(step["step"]), amount(step)) for step in run.steps]
    return lambda version: math.fsum(value for step, value in steps if step <= version)


def _step_tokens(step: Mapping[str, Any]) -> float:
    return step.get("rollout/tokens") or step.get("train/response_tokens") or 0.0


def _step_minutes(step: Mapping[str, Any]) -> float:
    return (step.get("time/step_s") or 0.0) / 60


def temperature_curves(runs: Sequence[Run]) -> list[Figure]:
    """Plot accuracy against temperature for models with at least two temperatures."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        for result in eval_tables.results_of(run):
            name = f"{collect.short_model(str(result['model']))}, {result['prompting']}"
            lines.setdefault(name if len(runs) == 1 else f"{run.name}: {name}", []).append(result)
    shown = {name: sorted(rows, key=lambda r: float(r["temperature"])) for name, rows in lines.items() if len(rows) > 1}
    if not shown:
        return []
    data: list[dict[str, Any]] = []
    text = []
    for index, (name, rows) in enumerate(shown.items()):
        ends = [(float(r["temperature"]), r["accuracy"], r.get("ci_low"), r.get("ci_high")) for r in rows]
        data += band(name, index, ends)
        text.append(f"{name}: " + "; ".join(f"{words.percent(a)} at {t:g}" for t, a, _, _ in ends))
    legend = tuple((name, style(index)["color"]) for index, name in enumerate(shown))
    layout = axes("temperature", "accuracy", tickformat=".0%")
    caption = "Accuracy against the sampling temperature; the bands are 95 % intervals."
    return [Figure("temperature", "Temperature", caption, tuple(text), tuple(data), layout, legend, 380)]


def heat_map(shown: Sequence[AnswerSet]) -> list[Figure]:
    """Plot questions by models, green if right and black if wrong, with all models overlaid in the last row."""
    if not shown:
        return []
    keys = list(dict.fromkeys(key for answers in shown for key in answers.share_right))
    keys.sort(key=lambda key: (-_overlaid(shown, key), [-answers.share_right.get(key, 0.0) for answers in shown], key))
    rows = [[answers.share_right.get(key) for key in keys] for answers in shown]
    overlay = [_overlaid(shown, key) for key in keys]
    labels = [*(wrap_label(answers.label) for answers in shown), "<b>all overlaid</b>"]
    trace = {
        "type": "heatmap",
        "z": [*rows, overlay],
        "x": [escaped(item_id) for item_id, _ in keys] if len({k[0] for k in keys}) == len(keys) else None,
        "y": labels,
        "colorscale": [[0, WRONG], [1, RIGHT]],
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
        "ygap": 3,
        "hovertemplate": "%{y}<br>%{x}: %{z:.0%} right<extra></extra>",
    }
    layout = {
        "xaxis": {"showticklabels": False, "ticks": "", "title": {"text": f"{len(keys)} questions"}, "showgrid": False},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False, "automargin": True},
    }
    every, none = sum(share == 1 for share in overlay), sum(share == 0 for share in overlay)
    text = (
        f"of {len(keys)} questions, {every} were answered right by all, {none} by none, "
        f"{len(keys) - every - none} by some",
        *(f"{s.label}: {words.percent(s.accuracy)} of {len(s.share_right)} questions" for s in shown),
    )
    caption = (
        "One column per question, sorted by how many models answered it right. Green is right, black is wrong. Shades "
        "in between are shares of the samples and temperatures, and in the last row of all models. A gap means that "
        "the model did not get the question."
    )
    height = 110 + 34 * len(labels)
    return [Figure("questions", "Questions and models", caption, text, (drop_none(trace),), layout, (), height)]


def drop_none(trace: dict[str, Any]) -> dict[str, Any]:
    """Return the trace without None values."""
    return {name: value for name, value in trace.items() if value is not None}


def _overlaid(shown: Sequence[AnswerSet], key: Key) -> float:
    known = [answers.share_right[key] for answers in shown if key in answers.share_right]
    return math.fsum(known) / len(known)


def wrap_label(label: str) -> str:
    """Wrap and escape a label."""
    return "<br>".join(escaped(line) for line in textwrap.wrap(label, LABEL_WIDTH) or [label])


def error_kinds(shown: Sequence[AnswerSet]) -> list[Figure]:
    """Plot the kinds of answers of each model as stacked bars."""
    if not shown:
        return []
    labels = [wrap_label(answers.label) for answers in shown]
    data = []
    for kind in KINDS:
        shares = [answers.kind_counts.get(kind, 0) / sum(answers.kind_counts.values()) for answers in shown]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": KIND_NAMES[kind],
                "y": labels,
                "x": shares,
                "marker": {"color": KIND_COLORS[kind]},
                "text": [f"{100 * share:.0f}" if share >= 0.06 else "" for share in shares],
                "textposition": "inside",
                "insidetextanchor": "middle",
                "textangle": 0,
                "hovertemplate": f"%{{y}}<br>{KIND_NAMES[kind]}: %{{x:.1%}}<extra></extra>",
            }
        )
    layout = {
        "barmode": "stack",
        "xaxis": {"tickformat": ".0%", "range": [0, 1], "dtick": 0.25, "title": {"text": "share of the answers"}},
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
    }
    legend = tuple((KIND_NAMES[kind], KIND_COLORS[kind]) for kind in KINDS)
    text = tuple(_kind_words(answers) for answers in shown)
    caption = "Every answer has exactly one kind; the numbers in the bars are percentages."
    return [Figure("errors", "Kinds of answers", caption, text, tuple(data), layout, legend, 110 + 36 * len(shown))]


def _kind_words(answers: AnswerSet) -> str:
    total = sum(answers.kind_counts.values())
    parts = [f"{words.percent(answers.kind_counts.get(kind, 0) / total)} {KIND_NAMES[kind]}" for kind in KINDS]
    return f"{answers.label}: {', '.join(parts)}"
