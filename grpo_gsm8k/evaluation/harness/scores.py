"""lm-eval's results as records, and the changes between a baseline and a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_Z = 1.959964  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one task. `stderr` is lm-eval's, None if it gives none; `items` is None for a group."""

    model: str
    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    items: int | None
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class Change:
    """`after` minus `before`. `regression`: worse by more than the threshold; `verdict`: whether noise explains it."""

    task: str
    metric: str
    filter: str
    baseline: str
    model: str
    before: float
    after: float
    difference: float
    stderr: float | None
    regression: bool
    verdict: str  # better, worse, noise, unknown


def scores_of(model: str, found: Mapping[str, Any]) -> list[Score]:
    """Convert a result of `lm_eval.simple_evaluate`, whose keys are `metric,filter` and `metric_stderr,filter`."""
    scores = []
    for task, row in {**found["results"], **found.get("groups", {})}.items():
        better = found.get("higher_is_better", {}).get(task) or {}
        count = found.get("n-samples", {}).get(task, {}).get("effective")
        for metric, name, value in _metrics(row):
            stderr = row.get(f"{metric}_stderr,{name}")
            scores.append(
                Score(
                    model=model,
                    task=task,
                    metric=metric,
                    filter=name,
                    value=value,
                    stderr=float(stderr) if isinstance(stderr, int | float) else None,
                    items=count,
                    higher_is_better=bool(better.get(metric, True)),
                )
            )
    return scores


def changes_from_baseline(scores: Sequence[Score], baseline: str, threshold: float) -> list[Change]:
    """Compare every model with the baseline, metric by metric.

    The threshold is in the metric's units if higher is better (0.02: two points of accuracy), and a fraction of the
    baseline's value if lower is better (perplexity). The standard error of the difference assumes independent
    measurements. They share their items, so it is usually too large and the verdict conservative.
    """
    before = {(s.task, s.metric, s.filter): s for s in scores if s.model == baseline}
    return [
        _change(before[s.task, s.metric, s.filter], s, threshold)
        for s in scores
        if s.model != baseline and (s.task, s.metric, s.filter) in before
    ]


def scores_table(scores: Sequence[Score], found: Sequence[Change]) -> str:
    """Format all scores, followed by the changes."""
    width = max((len(s.task) for s in scores), default=4)
    lines = [f"{s.task:{width}}  {s.metric:20} {_with_error(s.value, s.stderr):>18}  {s.model}" for s in scores]
    if found:
        lines.append(f"{'task':{width}}  {'metric':20} {'before':>9} {'after':>9} {'change ± s.e.':>18}")
    for c in found:
        flag = "  REGRESSION" if c.regression else ""
        change = _with_error(c.difference, c.stderr, "+")
        line = f"{c.task:{width}}  {c.metric:20} {c.before:9.4f} {c.after:9.4f} {change:>18}  {c.verdict}{flag}"
        lines.append(f"{line}  {c.model}")
    return "\n".join(lines)


def _metrics(row: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    for key, value in row.items():
        metric, comma, name = key.partition(",")
        if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
            yield metric, name, float(value)


def _change(before: Score, after: Score, threshold: float) -> Change:
    difference = after.value - before.value
    loss = -difference if after.higher_is_better else difference / before.value if before.value else difference
    stderr = None if before.stderr is None or after.stderr is None else math.hypot(before.stderr, after.stderr)
    if stderr is None:
        verdict = "unknown" if difference else "noise"
    elif abs(difference) <= _Z * stderr:
        verdict = "noise"
    else:
        verdict = "worse" if loss > 0 else "better"
    return Change(
        task=after.task,
        metric=after.metric,
        filter=after.filter,
        baseline=before.model,
        model=after.model,
        before=before.value,
        after=after.value,
        difference=difference,
        stderr=stderr,
        regression=loss > threshold,
        verdict=verdict,
    )


def _with_error(value: float, stderr: float | None, sign: str = "") -> str:
    return f"{value:{sign}.4f}" if stderr is None else f"{value:{sign}.4f} ± {stderr:.4f}"
