"""Curves of methods: means over the seeds with a band, drawn by the report's own figures as if a method were a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from grpo_gsm8k.evaluation.statistics.hierarchical import method_interval
from grpo_gsm8k.report import figures
from grpo_gsm8k.report.material import Figure, PanelGroup, Run
from grpo_gsm8k.report.pairs import SEED
from grpo_gsm8k.report.seed_entries import validated
from grpo_gsm8k.report.seed_groups import MethodRuns, SeedGroups

# Means have no files: a figure that reads a run folder must not show the files of one seed as those of all.
NOWHERE = Path("mean over seeds")
CURVES_CAPTION = "Lines are means over the seeds of a method, bands 95 % intervals over seeds and items."
PANELS_CAPTION = "Mean over seeds ± one standard deviation."


def drawn_runs(runs: Sequence[Run], groups: SeedGroups) -> tuple[Run, ...]:
    """Return the runs to draw: one for each training method with several seeds, then all other runs as they are."""
    drawn = _drawn_methods(groups)
    inside = {one.run.folder for method in drawn.values() for one in method.replicates}
    means = (_mean_run(method, name) for name, method in drawn.items())
    return (*means, *(run for run in runs if run.folder not in inside))


def method_curves(drawn: Sequence[Run], groups: SeedGroups) -> list[Figure]:
    """Return the learning curves; with several seeds a line per method, and the numbers by method."""
    found = figures.learning_curves(drawn)
    if not _drawn_methods(groups):
        return found
    return [replace(figure, caption=f"{figure.caption.partition(';')[0]}. {CURVES_CAPTION}") for figure in found]


def method_panels(
    drawn: Sequence[Run], groups: SeedGroups, panels: Callable[[Sequence[Run]], list[PanelGroup]]
) -> list[PanelGroup]:
    """Return the small multiples by theme; with several seeds a line and a band per method."""
    shown = panels(drawn)
    methods = _drawn_methods(groups)
    if not methods:
        return shown
    low, high = (
        {figure.id: figure for group in panels(_with_steps(drawn, methods, end)) for figure in group.figures}
        for end in (_below, _above)
    )
    return [
        replace(group, figures=tuple(_with_band(f, low.get(f.id), high.get(f.id)) for f in group.figures))
        for group in shown
    ]


def _drawn_methods(groups: SeedGroups) -> dict[str, MethodRuns]:
    """Return the training methods with several seeds by their names, with the data where a name occurs twice.

    The number of seeds keeps the name apart from that of a run.
    """
    drawn = [method for method in groups.methods if method.is_training and len(method.replicates) > 1]
    names = [method.name for method in drawn]
    texts = (m.name if names.count(m.name) == 1 else f"{m.name}, {m.data}" for m in drawn)
    return {f"{text} ({len(m.replicates)} seeds)": m for text, m in zip(texts, drawn, strict=True)}


def _with_steps(drawn: Sequence[Run], methods: Mapping[str, MethodRuns], part: Callable[[Any], float]) -> list[Run]:
    """Return the drawn runs with another statistic of the seeds in the updates of methods."""
    return [replace(run, steps=_steps(methods[run.name], part)) if _is_mean(run) else run for run in drawn]


def _is_mean(run: Run) -> bool:
    return run.folder == NOWHERE


def _below(values: Any) -> float:
    return float(np.mean(values) - np.std(values, ddof=1))


def _above(values: Any) -> float:
    return float(np.mean(values) + np.std(values, ddof=1))


def _with_band(figure: Figure, low: Figure | None, high: Figure | None) -> Figure:
    """Put the area between the lines of `low` and `high` behind each line of the same name and the same updates."""
    if low is None or high is None:
        return figure
    ends = [{trace.get("name"): trace for trace in found.data} for found in (low, high)]
    data: list[dict[str, Any]] = []
    banded = False
    for trace in figure.data:
        down, up = (found.get(trace.get("name"), {}) for found in ends)
        if _is_line(trace) and trace["x"] == down.get("x") == up.get("x") and down["y"] != up["y"]:
            data += _area(trace, down["y"], up["y"])
            banded = True
        data.append(trace)
    caption = f"{figure.caption} {PANELS_CAPTION}" if banded else figure.caption
    return replace(figure, data=tuple(data), caption=caption)


def _is_line(trace: Mapping[str, Any]) -> bool:
    is_line = trace.get("type") == "scatter" and "lines" in str(trace.get("mode")) and "stackgroup" not in trace
    return is_line and "color" in trace.get("line", {})


def _area(line: Mapping[str, Any], low: Sequence[float], high: Sequence[float]) -> list[dict[str, Any]]:
    color = str(line["line"]["color"])
    shade = "rgba({},{},{},0.16)".format(*(int(color[at : at + 2], 16) for at in (1, 3, 5)))
    edge = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    return [
        {**edge, "x": line["x"], "y": low},
        {**edge, "x": line["x"], "y": high, "fill": "tonexty", "fillcolor": shade},
    ]


def _mean_run(method: MethodRuns, name: str) -> Run:
    runs = [one.run for one in method.replicates]
    return replace(
        runs[0],
        name=name,
        folder=NOWHERE,
        steps=_steps(method, np.mean),
        validations=tuple(_validations(runs)),
        manifest={},
        summary={},
        wall_seconds=None,
        notes=(),
    )


def _steps(method: MethodRuns, part: Callable[[Any], float]) -> tuple[dict[str, Any], ...]:
    return tuple(_by_position([one.run.steps for one in method.replicates], "step", part))


def _validations(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the mean of each validation that all seeds have, with its interval if all answers are readable."""
    found = _by_position([run.validations for run in runs], "version", np.mean)
    for record in found:
        ends: dict[str, float | None] = {"accuracy_ci_low": None, "accuracy_ci_high": None}
        answers = [validated(run, int(record["version"])) for run in runs]
        known = [scores for scores in answers if scores is not None and len(scores) > 1]
        if len(known) == len(runs) and all(scores.keys() == known[0].keys() for scores in known):
            scores = np.array([[one[item] for item in sorted(known[0])] for one in known])
            interval = method_interval(scores, SEED)
            ends = {"accuracy_ci_low": interval.low, "accuracy_ci_high": interval.high}
        record |= ends
    return found


def _by_position(
    records: Sequence[Sequence[Mapping[str, Any]]], key: str, part: Callable[[Any], float]
) -> list[dict[str, Any]]:
    """Return one record for each position that all runs have, of the values that are finite in all of them."""
    tables = [{int(record[key]): record for record in found} for found in records]
    shared = sorted(set(tables[0]).intersection(*tables[1:]))
    return [{**_numbers([table[at] for table in tables], part), key: at} for at in shared]


def _numbers(records: Sequence[Mapping[str, Any]], part: Callable[[Any], float]) -> dict[str, float]:
    names = set(records[0]).intersection(*records[1:])
    values = {name: [record[name] for record in records] for name in sorted(names)}
    return {name: float(part(found)) for name, found in values.items() if all(map(_is_finite, found))}


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
