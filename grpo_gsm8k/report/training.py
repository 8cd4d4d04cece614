"""The section about training: panels by theme, with the figures that need more than one metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from grpo_gsm8k.report.kinds_over_time import kinds_over_time
from grpo_gsm8k.report.length_histograms import length_histograms
from grpo_gsm8k.report.material import Figure, PanelGroup, Run
from grpo_gsm8k.report.panels import panels
from grpo_gsm8k.report.themes import THEMES


def training_groups(runs: Sequence[Run], notes: list[str]) -> list[PanelGroup]:
    """Return the panels of the training runs by theme; unreadable files become notes."""
    first: dict[str, list[Figure]] = {"Validation": kinds_over_time(runs)}
    last: dict[str, list[Figure]] = {"Completions": length_histograms(runs, notes)}
    groups = {group.title: group for group in panels(runs)}
    found = [
        replace(group, figures=(*first.get(title, ()), *group.figures, *last.get(title, ())))
        for title in THEMES
        for group in [groups.get(title, PanelGroup(title, (), ()))]
    ]
    return [group for group in found if group.figures or group.constant]
