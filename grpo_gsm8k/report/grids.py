"""Grids of questions: one per model, green where it was ever right, and one in which all models are overlaid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from grpo_gsm8k.evaluation.statistics.intervals import mean_interval
from grpo_gsm8k.report import words
from grpo_gsm8k.report.figures import RIGHT, WRONG, escaped
from grpo_gsm8k.report.material import AnswerSet, Figure, Key
from grpo_gsm8k.report.pairs import SEED

HEIGHT = 250
MARGIN = {"l": 4, "r": 4, "t": 8, "b": 8}
NUMBERED = 144  # with more questions the cells of the overlay are too small for a number
SPACED = 400  # with more questions gaps would hide the cells
LEGEND = (("right", RIGHT), ("wrong", WRONG))


def question_grids(sets: Sequence[AnswerSet]) -> list[Figure]:
    """Return the overlay, if there are several models, and one grid per model. A question has the same place in all.

    A question counts as right if any completion is, at any temperature.
    """
    keys = list(dict.fromkeys(key for answers in sets for key in answers.share_right))
    grids = [_model_grid(index, answers, keys) for index, answers in enumerate(sets)]
    return [_overlay(sets, keys), *grids] if len(sets) > 1 else grids


def grid_size(items: int) -> tuple[int, int]:
    """Return rows and columns of the most nearly square grid that has room: 10 x 10 for 100 questions."""
    columns = math.isqrt(items - 1) + 1
    return math.ceil(items / columns), columns


def _model_grid(index: int, answers: AnswerSet, keys: Sequence[Key]) -> Figure:
    def value(key: Key) -> float | None:
        share = answers.share_right.get(key)
        return None if share is None else float(share > 0)

    def hover(key: Key) -> str:
        share = answers.share_right.get(key)
        return "not asked" if share is None else "wrong" if share == 0 else f"right in {words.percent(share)}"

    right = sum(share > 0 for share in answers.share_right.values())
    total = len(answers.share_right)
    text = f"{right} of {total} questions right, {words.percent(right / total)}"
    trace = _trace(keys, value, hover) | {"zmax": 1}
    return Figure(f"grid-{index}", answers.label, f"{text}.", (text,), (trace,), _layout(), LEGEND, HEIGHT)


def _overlay(sets: Sequence[AnswerSet], keys: Sequence[Key]) -> Figure:
    def count(key: Key) -> int:
        return sum(answers.share_right.get(key, 0.0) > 0 for answers in sets)

    trace = _trace(keys, count, lambda key: f"right by {count(key)} of {len(sets)}") | {"zmax": len(sets)}
    if len(keys) <= NUMBERED:
        trace |= {"texttemplate": "%{z}", "textfont": {"size": 10, "color": "#ffffff"}}
    solved = mean_interval([float(count(key) > 0) for key in keys], SEED)
    by_all = sum(count(key) == len(sets) for key in keys)
    share = f"{words.percent(solved.estimate)} {words.interval(solved.low, solved.high)}"
    text = (
        f"{sum(count(key) > 0 for key in keys)} of {len(keys)} questions were solved by at least one of {len(sets)} "
        f"models and ways of asking: {share}",
        f"{by_all} were solved by all, {sum(count(key) == 0 for key in keys)} by none",
    )
    caption = f"How many are right about a question. {text[0]}; {text[1]}."
    legend = (("right by all", RIGHT), ("by none", WRONG))
    return Figure("grid-overlay", "All overlaid", caption, text, (trace,), _layout(), legend, HEIGHT)


def _trace(keys: Sequence[Key], value: Callable[[Key], float | None], hover: Callable[[Key], str]) -> dict[str, Any]:
    rows, columns = grid_size(len(keys))
    places: list[Key | None] = [*keys, *[None] * (rows * columns - len(keys))]
    table = [places[at : at + columns] for at in range(0, len(places), columns)]
    gap = 2 if len(keys) <= SPACED else 0
    return {
        "type": "heatmap",
        "z": [[None if key is None else value(key) for key in row] for row in table],
        "hovertext": [["" if key is None else f"{escaped(key[0])}: {hover(key)}" for key in row] for row in table],
        "hovertemplate": "%{hovertext}<extra></extra>",
        "hoverongaps": False,
        "colorscale": [[0, WRONG], [1, RIGHT]],
        "zmin": 0,
        "showscale": False,
        "xgap": gap,
        "ygap": gap,
    }


def _layout() -> dict[str, Any]:
    hidden = {"showticklabels": False, "ticks": "", "showgrid": False, "zeroline": False, "constrain": "domain"}
    return {"margin": MARGIN, "xaxis": hidden, "yaxis": {**hidden, "autorange": "reversed", "scaleanchor": "x"}}
