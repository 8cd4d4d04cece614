"""Grids of questions, bars and pass@k of evaluations."""

from __future__ import annotations

from pathlib import Path

from grpo_gsm8k.report.eval_figures import accuracy_bars, pass_at_k_curves, question_grids
from grpo_gsm8k.report.material import AnswerSet, Run


def answers(label: str, share_right: dict[str, float]) -> AnswerSet:
    return AnswerSet(
        label, "eval", None, {}, {(item, item): share for item, share in share_right.items()}, {}, 1, label
    )


def evaluation(*results: dict[str, object]) -> Run:
    return Run("eval", Path("eval"), "eval", {}, {}, {"results": list(results)}, (), (), None, ())


def test_a_question_is_green_if_it_is_right_at_any_temperature() -> None:
    one = answers("one", {"a": 0.5, "b": 0.0, "c": 1.0, "d": 0.0, "e": 0.0})
    two = answers("two", {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.25})
    (figure,) = question_grids([one, two])
    assert [trace["z"] for trace in figure.data] == [
        [[1, 0, 1], [0, 0, None]],
        [[1, 0, 0], [1, None, None]],
        [[1, 0, 0.5], [0.5, 0, None]],
    ]
    assert figure.data[0]["text"] == [["a", "b", "c"], ["d", "e", None]]
    assert figure.words == (
        "one: 2 of 5 right",
        "two: 2 of 5 right",
        "right by at least one model: 3 of 5 (60.0 %)",
    )
    assert len({trace["xaxis"] for trace in figure.data}) == 3


def test_a_single_model_has_no_overlay_and_validations_have_no_grid() -> None:
    (figure,) = question_grids([answers("one", {"a": 1.0})])
    assert len(figure.data) == 1
    assert question_grids([]) == []


def test_bars_reach_to_the_ends_of_their_intervals() -> None:
    asked = {"model": "m", "prompting": "zero_shot"}
    run = evaluation(
        {**asked, "temperature": 0.0, "accuracy": 0.5, "ci_low": 0.4, "ci_high": 0.75},
        {**asked, "temperature": 1.0, "accuracy": 0.25, "ci_low": 0.25, "ci_high": 0.5},
    )
    (figure,) = accuracy_bars([run])
    (trace,) = figure.data
    assert (trace["x"], trace["y"]) == (["0", "1"], [0.5, 0.25])
    assert (trace["error_y"]["array"], trace["error_y"]["arrayminus"]) == ([0.25, 0.25], [0.09999999999999998, 0.0])


def test_pass_at_k_needs_several_samples() -> None:
    asked = {"model": "m", "prompting": "zero_shot", "temperature": 1.0, "accuracy": 0.5}
    once = {**asked, "pass_at": {"1": 0.5}}
    often = {**asked, "pass_at": {"1": 0.5, "2": 0.75}, "pass_at_ci": {"1": [0.4, 0.6], "2": [0.7, 0.8]}}
    assert pass_at_k_curves([evaluation(once)]) == []
    (figure,) = pass_at_k_curves([evaluation(often)])
    low, high, line = figure.data
    assert (low["y"], high["y"], line["x"], line["y"]) == ([0.4, 0.7], [0.6, 0.8], [1.0, 2.0], [0.5, 0.75])
