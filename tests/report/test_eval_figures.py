"""Bars and curves of evaluations from known summaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grpo_gsm8k.report import eval_figures, eval_tables
from grpo_gsm8k.report.material import Figure, Run
from grpo_gsm8k.report.render import strict


def result(way: str, temperature: float, accuracy: float, **more: Any) -> dict[str, Any]:
    asked = {"model": "m", "prompting": way, "temperature": temperature, "items": 50, "samples": 1}
    return asked | {"accuracy": accuracy, "ci_low": accuracy - 0.1, "ci_high": accuracy + 0.2} | more


def run(**summary: Any) -> Run:
    return Run("r", Path(), "eval", {}, {}, summary, (), (), 1.0)


def drawn(figure: Figure) -> dict[str, Any]:
    """Check a figure with plotly, and return its traces by name."""
    graph_objects = pytest.importorskip("plotly.graph_objects")
    graph_objects.Figure(strict({"data": figure.data, "layout": figure.layout}))
    return {trace["name"]: trace for trace in figure.data if "name" in trace}


def test_a_setting_that_was_not_evaluated_has_no_bar() -> None:
    results = [result("zero_shot", 0.0, 0.5), result("zero_shot", 1.0, 0.25), result("one_shot", 0.0, 0.75)]
    (figure,) = eval_figures.accuracy_bars([run(results=results)])
    traces = drawn(figure)
    assert traces["temperature 0"]["x"] == [0.5, 0.75]
    assert traces["temperature 1"]["x"] == [0.25, None]
    assert traces["temperature 1"]["error_x"]["array"] == [pytest.approx(0.2), None]
    assert figure.words[0] == ("m, zero_shot: temperature 0 50.0 % [40.0, 70.0]; temperature 1 25.0 % [15.0, 45.0]")
    (single,) = eval_figures.accuracy_bars([run(results=results[:1])])
    assert len(single.data) == 1
    assert eval_figures.accuracy_bars([run(results=[])]) == []


def test_a_run_from_before_the_majority_has_a_bar_less() -> None:
    any_temperature = [{"model": "m", "prompting": "zero_shot", "temperatures": [0, 1], "items": 9, "completions": 2}]
    any_temperature[0] |= {"accuracy": 0.5, "ci_low": 0.4, "ci_high": 0.6}
    (figure,) = eval_figures.over_temperatures_bars([run(any_temperature=any_temperature)])
    assert list(drawn(figure)) == ["right at any temperature"]
    assert eval_tables.any_temperature_table([run(any_temperature=any_temperature)]).rows[0][-2:] == ("–", "–")


def test_pass_at_k_with_and_without_intervals() -> None:
    sampled = {"samples": 4, "pass_at": {"1": 0.25, "2": 0.4, "4": 0.5}}
    ends = {"1": [0.2, 0.3], "2": [0.3, 0.5], "4": [0.4, 0.6]}
    results = [
        result("zero_shot", 1.0, 0.25, **sampled, pass_at_ci=ends),
        result("one_shot", 0.0, 0.5, pass_at={"1": 1}),
    ]
    (figure,) = eval_figures.pass_at_curves([run(results=results)])
    low, high, line = figure.data
    assert (line["x"], line["y"]) == ([1.0, 2.0, 4.0], [0.25, 0.4, 0.5])
    assert (low["y"], high["y"]) == ([0.2, 0.3, 0.4], [0.3, 0.5, 0.6])
    assert figure.layout["xaxis"]["ticktext"] == ["1", "2", "4"]
    assert list(drawn(figure)) == ["m, zero_shot, T=1"]
    (older,) = eval_figures.pass_at_curves([run(results=[result("zero_shot", 1.0, 0.25, **sampled)])])
    assert older.data[0]["y"] == [None] * 3
    many = [result(f"way{i}", 1.0, 0.25, **sampled) for i in range(9)]
    (figure,) = eval_figures.pass_at_curves([run(results=many)])
    assert figure.caption.endswith("The first 7 of 9 settings.")


def test_the_table_of_ways() -> None:
    way = {"model": "/x/runs/1_a/checkpoints/step_9/model", "a": "zero_shot", "b": "one_shot", "temperature": 0.0}
    way |= {"gained": 8, "lost": 1, "difference": 0.14, "ci_low": 0.02, "ci_high": 0.26, "p": 0.039, "p_holm": 0.078}
    way |= {"smallest_difference": 0.17, "verdict": "noise"}
    (row,) = eval_tables.ways_table([run(comparisons_of_ways=[way])]).rows
    assert row == (
        *("r", "1_a/step_9", "zero_shot", "one_shot", "0", "8, 1"),
        *("+14.0 [+2.0, +26.0]", "0.039", "0.078", "17.0 points", "noise"),
    )
