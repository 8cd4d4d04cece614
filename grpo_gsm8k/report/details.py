"""The detailed parts of a report: timelines, sampled completions, and questions over the course of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grpo_gsm8k.report.completion_samples import CompletionSamples, completion_samples, kinds_in
from grpo_gsm8k.report.item_histories import ItemHistories, item_histories
from grpo_gsm8k.report.material import Material
from grpo_gsm8k.report.solve_rates import SolveRates, solve_rates
from grpo_gsm8k.report.timeline_chart import TimelineChart, timeline_charts


@dataclass(frozen=True, slots=True)
class Details:
    """What `details.js` draws; each part may be empty."""

    timelines: tuple[TimelineChart, ...]
    completions: CompletionSamples | None
    rates: tuple[SolveRates, ...]
    histories: tuple[ItemHistories, ...]

    def page_data(self) -> dict[str, Any]:
        """Return the JSON of the page."""
        return {
            "timelines": [chart.page_data() for chart in self.timelines],
            "completions": [] if self.completions is None else self.completions.rows,
            "kinds": {} if self.completions is None else kinds_in(self.completions),
            "rates": [rates.page_data() for rates in self.rates],
            "histories": [histories.page_data() for histories in self.histories],
        }


def details(material: Material) -> Details:
    """Read the detailed parts of a report from the run folders."""
    runs = material.runs
    return Details(
        tuple(timeline_charts(runs)), completion_samples(runs), tuple(solve_rates(runs)), tuple(item_histories(runs))
    )
