"""Small multiples: one small figure per recorded metric or group of metrics, with a color per run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from grpo_gsm8k.report import words
from grpo_gsm8k.report.figures import axes, escaped, run_legend, shade, style
from grpo_gsm8k.report.material import Figure, PanelGroup, Run
from grpo_gsm8k.report.themes import REWARD_PARTS, THEMES, Panel
from grpo_gsm8k.tracking.metrics import METRICS, PREFIXES, UNITS

MAX_POINTS = 400  # of all runs in a panel together; more are averaged in equal groups
MIN_POINTS = 60  # per run
HEIGHT = 220
PART = "train/reward_"
DASHES = ("solid", "dash", "dot")
Points = tuple[list[float], list[float]]
Lines = dict[tuple[int, str], Points]  # by run and metric


def panels(runs: Sequence[Run]) -> list[PanelGroup]:
    """Return the figures of each theme, and the names and values of its constant metrics; without data, neither."""
    groups = [_group(title, members, runs) for title, members in _themes(runs).items()]
    return [group for group in groups if group.figures or group.constant]


def _themes(runs: Sequence[Run]) -> dict[str, tuple[Panel, ...]]:
    """Return the panels by theme, with those of the reward's parts after the total."""
    found = sorted({name for run in runs for step in run.steps for name in step if name.startswith(PART)})
    known = {name for members in THEMES.values() for panel in members for name in panel.metrics}
    parts = [Panel(f"Reward part: {name.removeprefix(PART)}", (name,)) for name in found if name not in known]
    total, *others = THEMES[REWARD_PARTS]
    return THEMES | {REWARD_PARTS: (total, *parts, *others)}


def _group(title: str, members: Sequence[Panel], runs: Sequence[Run]) -> PanelGroup:
    figures: list[Figure] = []
    constant: list[str] = []
    for panel in members:
        lines = {
            (index, name): points
            for index, run in enumerate(runs)
            for name in panel.metrics
            if (points := _points(run, name, max(MAX_POINTS // len(runs), MIN_POINTS)))[0]
        }
        if any(_varies(name, lines) for name in panel.metrics):
            figures.append(_figure(panel, lines, runs))
        else:
            constant += [_constant(panel, name, lines) for name in panel.metrics if _values(name, lines)]
    return PanelGroup(title, tuple(figures), tuple(constant))


def _points(run: Run, name: str, most: int) -> Points:
    """Return where a metric was measured, in updates, and its values, averaged to at most `most` points."""
    key = name.removeprefix("val/")
    records, x = (run.steps, "step") if key == name else (run.validations, "version")
    found = [(float(record[x]), record.get(key)) for record in records]
    known = [(x, float(y)) for x, y in found if isinstance(y, int | float) and math.isfinite(y)]
    size = math.ceil(len(known) / most) or 1
    groups = [known[at : at + size] for at in range(0, len(known), size)]
    ys = [math.fsum(y for _, y in group) / len(group) for group in groups]
    return [group[-1][0] for group in groups], [float(f"{y:.5g}") for y in ys]


def _values(name: str, lines: Lines) -> list[float]:
    return [y for (_, measured), (_, ys) in lines.items() if measured == name for y in ys]


def _varies(name: str, lines: Lines) -> bool:
    return len(set(_values(name, lines))) > 1


def _constant(panel: Panel, name: str, lines: Lines) -> str:
    title = panel.title if panel.title.startswith("KL") else panel.title[:1].lower() + panel.title[1:]
    label = _label(panel, name)
    return f"{title}{f' ({label})' if label else ''}: {words.number(_values(name, lines)[0])}"


def _label(panel: Panel, name: str) -> str:
    """Return what tells a metric from the others of its panel; empty for the only one."""
    if name not in panel.names:
        return meaning_of(name)[0]
    return panel.labels[panel.names.index(name)] if panel.labels else ""


def _figure(panel: Panel, lines: Lines, runs: Sequence[Run]) -> Figure:
    data = [trace for index, run in enumerate(runs) for trace in _traces(panel, index, run, lines)]
    text = tuple(_words(panel, name, runs[index], points) for (index, name), points in lines.items())
    large = any(abs(y) >= 1000 for _, ys in lines.values() for y in ys)
    format_ = {"tickformat": panel.tickformat} if panel.tickformat else {"exponentformat": "SI" if large else "e"}
    panel_id = "panel-" + "".join(c if c.isalnum() else "-" for c in panel.names[0])
    layout = axes("updates", "", **format_)
    return Figure(panel_id, panel.title, _caption(panel, lines), text, tuple(data), layout, run_legend(runs), HEIGHT)


def _traces(panel: Panel, index: int, run: Run, lines: Lines) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = []
    for low, high in panel.bands:
        if (index, low) in lines and (index, high) in lines:
            data += _area(index, lines[index, low], lines[index, high])
    for number, name in enumerate(panel.names):
        if (index, name) in lines:
            data.append(_line(index, number, f"{run.name} {_label(panel, name)}".strip(), lines[index, name]))
    return data


def _area(index: int, low: Points, high: Points) -> list[dict[str, Any]]:
    edge = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    filled = {"fill": "tonexty", "fillcolor": shade(index)}
    return [{**edge, "x": low[0], "y": low[1]}, {**edge, "x": high[0], "y": high[1], **filled}]


def _line(index: int, number: int, name: str, points: Points) -> dict[str, Any]:
    line = {**style(index), "width": 1.6 if number == 0 else 1.2}
    if number:
        line["dash"] = DASHES[number % len(DASHES)]
    return {
        "type": "scatter",
        "mode": "lines" if len(points[0]) > 1 else "markers",
        "x": points[0],
        "y": points[1],
        "line": line,
        "name": escaped(name),
        "hovertemplate": f"{escaped(name)}<br>update %{{x}}: %{{y:.4~g}}<extra></extra>",
    }


def _words(panel: Panel, name: str, run: Run, points: Points) -> str:
    xs, ys = points
    label = _label(panel, name)
    return (
        f"{run.name}{f', {label}' if label else ''}: {words.number(ys[0])} at update {xs[0]:.0f}, "
        f"{words.number(ys[-1])} at {xs[-1]:.0f}; lowest {words.number(min(ys))}, highest {words.number(max(ys))}"
    )


def _caption(panel: Panel, lines: Lines) -> str:
    if panel.caption:
        return panel.caption
    shown = [name for name in panel.names if any(measured == name for _, measured in lines)]
    meanings = [" in ".join(part for part in meaning_of(name) if part) for name in shown]
    if len(shown) > 1:
        dashes = ("solid", "dashed", "dotted")
        meanings = [f"{dashes[panel.names.index(name)]}: {text}" for name, text in zip(shown, meanings, strict=True)]
    text = "; ".join(meanings)
    return f"{text[:1].upper()}{text[1:]}."


def meaning_of(name: str) -> tuple[str, str]:
    """Return the meaning of a metric and its unit, which may be empty."""
    known: Mapping[str, str] = METRICS
    text = known.get(name) or next((m for prefix, m in PREFIXES.items() if name.startswith(prefix)), "")
    meaning, _, unit = text.rpartition(", ")
    return (meaning, "" if unit == "0 to 1" else unit) if unit in UNITS else (text, "")
