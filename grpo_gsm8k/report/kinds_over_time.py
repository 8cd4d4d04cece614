"""What became of the validation answers, as stacked areas over the updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grpo_gsm8k.report import words
from grpo_gsm8k.report.figures import KIND_COLORS, axes
from grpo_gsm8k.report.material import KIND_NAMES, KINDS, Figure, Run

SHARES = {
    "correct": "accuracy",
    "logic": "logic_error_frac",
    "format": "format_error_frac",
    "truncated": "truncated_frac",
}
MAX_RUNS = 4  # of more runs, the panels of the single kinds are easier to compare
LEGEND = tuple((KIND_NAMES[kind], KIND_COLORS[kind]) for kind in KINDS)


def kinds_over_time(runs: Sequence[Run]) -> list[Figure]:
    """Return one figure for each run with at least two validations, unless there are too many runs."""
    known = [(index, run, _complete(run)) for index, run in enumerate(runs)]
    shown = [(index, run, found) for index, run, found in known if len(found) > 1]
    return [_areas(index, run, found, len(runs)) for index, run, found in shown] if len(runs) <= MAX_RUNS else []


def _complete(run: Run) -> list[Mapping[str, Any]]:
    return [v for v in run.validations if all(isinstance(v.get(key), int | float) for key in SHARES.values())]


def _areas(index: int, run: Run, found: Sequence[Mapping[str, Any]], of: int) -> Figure:
    xs = [int(v["version"]) for v in found]
    data = tuple(
        {
            "type": "scatter",
            "mode": "lines",
            "stackgroup": "kinds",
            "name": KIND_NAMES[kind],
            "x": xs,
            "y": [v[SHARES[kind]] for v in found],
            "line": {"width": 0.5, "color": KIND_COLORS[kind]},
            "hovertemplate": f"{KIND_NAMES[kind]}<br>update %{{x}}: %{{y:.1%}}<extra></extra>",
        }
        for kind in KINDS
    )
    text = tuple(
        f"after update {v['version']}: "
        + ", ".join(f"{words.percent(v[SHARES[kind]])} {KIND_NAMES[kind]}" for kind in KINDS)
        for v in (found[0], found[-1])
    )
    layout = axes("updates", "", tickformat=".0%", range=[0, 1])
    title = "Validation answers" if of == 1 else f"Validation answers of {run.name}"
    caption = "Every validation answer has exactly one kind: shares of the answers after each validated update."
    return Figure(f"kinds-{index}", title, caption, text, data, layout, LEGEND, 220)
