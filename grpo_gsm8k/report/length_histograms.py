"""Histograms of the lengths of training completions, right against wrong, from the files in rollouts/."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grpo_gsm8k.report import words
from grpo_gsm8k.report.collect import spread
from grpo_gsm8k.report.figures import KIND_COLORS, axes
from grpo_gsm8k.report.material import Figure, Run

BINS = 24
MAX_FILES = 12  # per histogram; the tokens of each file have to be read, which takes about 10 ms
PARTS = 4  # the first and the last of this many equal parts of a run are shown
HEIGHT = 220
NAMES = {True: "right", False: "wrong"}
COLORS = {True: KIND_COLORS["correct"], False: KIND_COLORS["logic"]}
LEGEND = tuple((NAMES[right], COLORS[right]) for right in (True, False))


def length_histograms(runs: Sequence[Run], notes: list[str]) -> list[Figure]:
    """Return two histograms of a single run, from its begin and its end; of several runs, the later one of each."""
    figures = []
    for index, run in enumerate(runs):
        steps = [int(s["step"]) for s in run.steps if (run.folder / "rollouts" / f"step_{s['step']}.parquet").is_file()]
        size = -(-len(steps) // PARTS)
        parts = [steps[-size:]] if len(runs) > 1 or len(steps) <= size else [steps[:size], steps[-size:]]
        figures += [_histogram(index, run, part, runs, notes) for part in parts if part]
    return [figure for figure in figures if figure]


def _histogram(index: int, run: Run, steps: Sequence[int], runs: Sequence[Run], notes: list[str]) -> Figure | None:
    chosen = spread(steps, MAX_FILES)
    lengths, right = _read(run, chosen, notes)
    if not len(lengths):
        return None
    edges = np.histogram_bin_edges(lengths, bins=_bins(lengths))
    counts = {verdict: np.histogram(lengths[right == verdict], edges)[0] for verdict in (True, False)}
    data = [_bars(NAMES[verdict], COLORS[verdict], edges, counts[verdict]) for verdict in (True, False)]
    name = f" of {run.name}" if len(runs) > 1 else ""
    at = f"update {steps[0]}" if len(steps) == 1 else f"updates {steps[0]} to {steps[-1]}"
    text = tuple(_words(NAMES[verdict], lengths[right == verdict]) for verdict in (True, False))
    sampled = f", in {len(chosen)} of its {len(steps)} updates" if len(chosen) < len(steps) else ""
    caption = f"Number of training completions by length in tokens, right against wrong{sampled}."
    layout = {**axes("tokens", ""), "barmode": "overlay", "bargap": 0}
    title = f"Lengths{name}, {at}"
    return Figure(f"lengths-{index}-{steps[0]}", title, caption, text, tuple(data), layout, LEGEND, HEIGHT)


def _read(run: Run, steps: Sequence[int], notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return length and verdict of each completion of these updates."""
    lengths, right = [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    for step in steps:
        path = run.folder / "rollouts" / f"step_{step}.parquet"
        try:
            of_file = _lengths_and_verdicts(path)
        except (OSError, pa.ArrowException, KeyError) as error:
            notes.append(f"{run.name}: completions of update {step} are unreadable ({type(error).__name__})")
            continue
        lengths.append(of_file[0])
        right.append(of_file[1])
    return np.concatenate(lengths), np.concatenate(right)


def _lengths_and_verdicts(path: Path) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(path, columns=["tokens", "kind"])
    return pc.list_value_length(table["tokens"]).to_numpy(), pc.equal(table["kind"], "correct").to_numpy()


def _bins(lengths: np.ndarray) -> int:
    """Return how many bins of whole tokens cover the lengths, at most BINS."""
    return int(min(BINS, max(1, np.ptp(lengths))))


def _bars(name: str, color: str, edges: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    ends = [f"{low:.0f} to {high:.0f}" for low, high in pairwise(edges)]
    return {
        "type": "bar",
        "name": name,
        "x": [float(f"{x:.5g}") for x in (edges[:-1] + edges[1:]) / 2],
        "width": [float(f"{x:.5g}") for x in np.diff(edges)],
        "y": counts.tolist(),
        "opacity": 0.6,
        "marker": {"color": color},
        "hovertext": ends,
        "hovertemplate": f"{name}, %{{hovertext}} tokens: %{{y}}<extra></extra>",
    }


def _words(name: str, lengths: np.ndarray) -> str:
    if not len(lengths):
        return f"{name}: none"
    low, middle, high = np.quantile(lengths, [0.1, 0.5, 0.9])
    return (
        f"{name}: {len(lengths)} completions, median {words.number(float(middle))} tokens, "
        f"80 % from {words.number(float(low))} to {words.number(float(high))}"
    )
