"""The figures of evaluations: bars, grids of questions, and pass@k."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from grpo_gsm8k.report import collect, eval_tables, words
from grpo_gsm8k.report.figures import RIGHT, WRONG, axes, band, escaped, style, wrap_label
from grpo_gsm8k.report.material import AnswerSet, Figure, Key, Run

MOST_GRIDS = 11  # models; with their overlay, twelve squares
GRID_COLUMNS = 3
GRID_HEIGHT = 250  # pixels of a row of grids


def accuracy_bars(runs: Sequence[Run]) -> list[Figure]:
    """Plot one bar per model, way of asking and temperature, with its interval."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        for result in eval_tables.results_of(run):
            groups.setdefault(_name(run, result, len(runs) > 1), []).append(result)
    if not groups:
        return []
    data = [_bars(name, index, results) for index, (name, results) in enumerate(groups.items())]
    text = [
        f"{name}: " + "; ".join(f"{words.percent(r['accuracy'])} at {float(r['temperature']):g}" for r in results)
        for name, results in groups.items()
    ]
    layout = {**axes("temperature", "accuracy", tickformat=".0%", rangemode="tozero"), "barmode": "group"}
    layout["xaxis"] = {**layout["xaxis"], "type": "category"}
    legend = tuple((name, style(index)["color"]) for index, name in enumerate(groups))
    caption = "Accuracy of each model, way of asking and temperature; the lines are 95 % intervals over the problems."
    return [Figure("accuracy", "Accuracy", caption, tuple(text), tuple(data), layout, legend, 360)]


def pass_at_k_curves(runs: Sequence[Run]) -> list[Figure]:
    """Plot pass@k against k for settings with several samples."""
    curves: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        for result in eval_tables.results_of(run):
            if len(result.get("pass_at") or ()) > 1:
                name = f"{_name(run, result, len(runs) > 1)}, {float(result['temperature']):g}"
                curves[name] = result
    if not curves:
        return []
    data: list[dict[str, Any]] = []
    text = []
    for index, (name, result) in enumerate(curves.items()):
        ends = result.get("pass_at_ci") or {}
        rows = [(float(k), value, *(ends.get(k) or (None, None))) for k, value in result["pass_at"].items()]
        data += band(name, index, rows)
        text.append(f"{name}: " + "; ".join(f"{words.percent(value)} of {k}" for k, value in result["pass_at"].items()))
    layout = axes("samples k", "pass@k", tickformat=".0%")
    layout["xaxis"] = {**layout["xaxis"], "type": "log", "dtick": math.log10(2), "tickformat": "d"}
    legend = tuple((name, style(index)["color"]) for index, name in enumerate(curves))
    caption = (
        "The probability that at least one of k samples is right (Chen et al. 2021); the bands are 95 % intervals over "
        "the problems."
    )
    return [Figure("pass-at-k", "Pass@k", caption, tuple(text), tuple(data), layout, legend, 380)]


def question_grids(merged: Sequence[AnswerSet]) -> list[Figure]:
    """Plot a square of questions per evaluated model, green if right at any temperature, and all squares overlaid."""
    shown = [answers for answers in merged if answers.version is None][:MOST_GRIDS]
    if not shown:
        return []
    keys = list(dict.fromkeys(key for answers in shown for key in answers.share_right))
    grids = [(answers.label, [_right(answers, key) for key in keys]) for answers in shown]
    solved = [[known for _, values in grids if (known := values[at]) is not None] for at in range(len(keys))]
    if len(grids) > 1:
        grids.append((f"all {len(grids)} overlaid", [sum(values) / len(values) for values in solved]))
    data, layout = _squares(grids, keys)
    anyone = sum(any(values) for values in solved)
    text = (
        *(f"{name}: {_count(values)} of {len(keys)} right" for name, values in grids[: len(shown)]),
        f"right by at least one model: {anyone} of {len(keys)} ({words.percent(anyone / len(keys))})",
    )
    caption = (
        "One square per question, in the order of evaluation, row by row: green if one of the model's completions at "
        "any temperature is right, else black. Overlaid, the shade is the share of models. A gap: not asked."
    )
    height = 60 + GRID_HEIGHT * math.ceil(len(grids) / GRID_COLUMNS)
    return [Figure("grids", "Grids of questions", caption, text, tuple(data), layout, (), height)]


def _name(run: Run, result: Mapping[str, Any], several: bool) -> str:
    name = f"{collect.short_model(str(result['model']))}, {result['prompting']}"
    return f"{run.name}: {name}" if several else name


def _bars(name: str, index: int, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    ends = [(r["accuracy"], r.get("ci_low"), r.get("ci_high")) for r in results]
    return {
        "type": "bar",
        "name": escaped(name),
        "x": [f"{float(r['temperature']):g}" for r in results],
        "y": [accuracy for accuracy, _, _ in ends],
        "marker": {"color": style(index)["color"]},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [0 if high is None else high - accuracy for accuracy, _, high in ends],
            "arrayminus": [0 if low is None else accuracy - low for accuracy, low, _ in ends],
        },
        "hovertemplate": f"{escaped(name)}<br>temperature %{{x}}: %{{y:.1%}}<extra></extra>",
    }


def _right(answers: AnswerSet, key: Key) -> float | None:
    share = answers.share_right.get(key)
    return None if share is None else float(share > 0)


def _count(values: Sequence[float | None]) -> int:
    return sum(value == 1 for value in values)


def _squares(
    grids: Sequence[tuple[str, list[float | None] | list[float]]], keys: Sequence[Key]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the traces and the layout of near-square heat maps, GRID_COLUMNS to a row."""
    side = math.ceil(math.sqrt(len(keys)))
    names = _folded([escaped(item_id) for item_id, _ in keys], side)
    columns, lines = min(GRID_COLUMNS, len(grids)), math.ceil(len(grids) / GRID_COLUMNS)
    plain = {"showticklabels": False, "ticks": "", "showgrid": False, "zeroline": False}
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"annotations": []}
    for at, (title, values) in enumerate(grids):
        number = str(at + 1) if at else ""
        left, top = (at % GRID_COLUMNS) / columns, 1 - (at // GRID_COLUMNS) / lines
        across, down = [left + 0.02, left + 1 / columns - 0.02], [top - 1 / lines + 0.02, top - 0.16 / lines]
        data.append({**_square(title, _folded(values, side), names), "xaxis": f"x{number}", "yaxis": f"y{number}"})
        layout[f"xaxis{number}"] = {**plain, "domain": across, "anchor": f"y{number}"}
        layout[f"yaxis{number}"] = {**plain, "domain": down, "autorange": "reversed", "anchor": f"x{number}"}
        layout["annotations"].append(_heading(title, left + 0.5 / columns, top - 0.13 / lines))
    return data, layout


def _square(title: str, shares: list[list[Any]], names: list[list[Any]]) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "z": shares,
        "text": names,
        "colorscale": [[0, WRONG], [1, RIGHT]],
        "zmin": 0,
        "zmax": 1,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": f"{escaped(title)}<br>%{{text}}: %{{z:.0%}}<extra></extra>",
    }


def _heading(title: str, x: float, y: float) -> dict[str, Any]:
    place = {"xref": "paper", "yref": "paper", "xanchor": "center", "yanchor": "bottom"}
    return {"text": wrap_label(title), "x": x, "y": y, "showarrow": False, **place}


def _folded(values: Sequence[Any], side: int) -> list[list[Any]]:
    """Return a list as rows of `side` cells; the last row is filled up with None."""
    padded = [*values, *[None] * (-len(values) % side)]
    return [padded[at : at + side] for at in range(0, len(padded), side)]
