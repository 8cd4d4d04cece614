"""Small multiples: one small figure per recorded metric, with a line per run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from grpo_gsm8k.report import words
from grpo_gsm8k.report.figures import axes, escaped, run_legend, style
from grpo_gsm8k.report.material import Figure, Run
from grpo_gsm8k.tracking.metrics import METRICS, PREFIXES

MAX_POINTS = 400  # per line; longer ones are averaged in equal groups
PANELS = {
    "train/reward_mean": "Reward",
    "rollout/length_mean": "Completion length",
    "rollout/truncated_frac": "Completions at the token limit",
    "train/entropy": "Entropy",
    "train/kl_behaviour": "KL, behavior to policy",
    "train/approx_kl": "KL, before to during the update",
    "train/kl_reference": "KL to the reference",
    "train/clip_frac": "Clip fraction",
    "train/frac_zero_variance_groups": "Groups without variance",
    "train/explained_variance": "Critic: explained variance",
    "train/loss": "Loss",
    "train/perplexity": "Perplexity",
    "train/token_accuracy": "Token accuracy",
    "train/grad_norm": "Gradient norm",
    "rollout/staleness_mean": "Staleness",
    "time/learner_idle_frac": "Learner idle",
    "time/actor_idle_frac": "Actor idle",
    "rollout/tokens_per_s": "Sampled tokens per second",
    "train/tokens_per_s": "Trained tokens per second",
    "sync/logprob_gap_mean": "Log-probability gap, engine to learner",
}
REWARD = "train/reward_"
RunLine = tuple[int, Run, list[float], list[float]]


def panels(runs: Sequence[Run]) -> tuple[list[Figure], list[str]]:
    """Return a figure for each metric that varies, and the names and values of the constant ones."""
    figures: list[Figure] = []
    constant: list[str] = []
    for name, title in _titles(runs).items():
        lines = [line for line in (_line(index, run, name) for index, run in enumerate(runs)) if line[2]]
        values = [value for line in lines for value in line[3]]
        if values and min(values) == max(values):
            constant.append(f"{title.lower() if not title.startswith('KL') else title}: {words.number(values[0])}")
        elif values:
            figures.append(_panel(name, title, lines, runs))
    return figures, constant


def _titles(runs: Sequence[Run]) -> dict[str, str]:
    """Return titles by metric, with the parts of the reward after the total."""
    parts = sorted({name for run in runs for step in run.steps for name in step if name.startswith(REWARD)})
    titles = {"train/reward_mean": PANELS["train/reward_mean"]}
    titles |= {name: f"Reward part: {name.removeprefix(REWARD)}" for name in parts if name not in titles}
    return titles | PANELS


def _line(index: int, run: Run, name: str) -> RunLine:
    found = [(float(s["step"]), s.get(name)) for s in run.steps]
    known = [(x, float(y)) for x, y in found if isinstance(y, int | float) and math.isfinite(y)]
    size = math.ceil(len(known) / MAX_POINTS) or 1
    groups = [known[at : at + size] for at in range(0, len(known), size)]
    ys = [math.fsum(y for _, y in group) / len(group) for group in groups]
    return index, run, [group[-1][0] for group in groups], ys


def _panel(name: str, title: str, lines: Sequence[RunLine], runs: Sequence[Run]) -> Figure:
    data = []
    for index, run, xs, ys in lines:
        trace: dict[str, Any] = {"type": "scatter", "mode": "lines" if len(xs) > 1 else "markers", "x": xs}
        hover = f"{escaped(run.name)}<br>update %{{x}}: %{{y:.4~g}}<extra></extra>"
        trace |= {"y": [float(f"{y:.5g}") for y in ys], "line": {**style(index), "width": 1.6}}
        data.append(trace | {"name": escaped(run.name), "hovertemplate": hover})
    text = tuple(
        f"{run.name}: {words.number(ys[0])} at update {xs[0]:.0f}, {words.number(ys[-1])} at {xs[-1]:.0f}; "
        f"lowest {words.number(min(ys))}, highest {words.number(max(ys))}"
        for _, run, xs, ys in lines
    )
    meaning = METRICS.get(name) or next((m for prefix, m in PREFIXES.items() if name.startswith(prefix)), "")
    if any(len(run.steps) > MAX_POINTS for _, run, _, _ in lines):
        meaning += f"; averaged to at most {MAX_POINTS} points"
    caption = f"{meaning[:1].upper()}{meaning[1:]}."
    panel_id = "panel-" + "".join(c if c.isalnum() else "-" for c in name)
    large = any(abs(y) >= 1000 for _, _, _, ys in lines for y in ys)
    layout = axes("updates", "", exponentformat="SI" if large else "e")
    return Figure(panel_id, title, caption, text, tuple(data), layout, run_legend(runs), 220)
