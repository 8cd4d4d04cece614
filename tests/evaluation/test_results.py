"""Summaries of several samples at several temperatures, compared with numbers counted by hand."""

from __future__ import annotations

import pytest

from grpo_gsm8k.evaluation.any_temperature import accuracy_at_any_temperature
from grpo_gsm8k.evaluation.predictions import Prediction
from grpo_gsm8k.evaluation.results import doublings, summarize_setting
from grpo_gsm8k.evaluation.results_table import results_table

HOT, COLD = ("m", "zero_shot", 1.0), ("m", "zero_shot", 0.0)
KINDS = {
    "R": "correct",
    "r": "logic",
    "w": "logic",
    "f": "format",
    "t": "truncated",
}  # r: right except for the notation


def lines(setting: tuple[str, str, float], outcomes: dict[str, str]) -> list[Prediction]:
    return [
        Prediction(
            *setting, item, sample, "?", "1234", "", None, NUMBERS[c], KINDS[c], c in "Rr", 10, -0.1, failed=False
        )
        for item, answered in outcomes.items()
        for sample, c in enumerate(answered)
    ]


NUMBERS = {"R": "1234", "r": "1.234", "w": "7", "f": None, "t": "1234"}
SAMPLED = lines(HOT, {"a": "RRww", "b": "rwwR", "c": "ffff", "d": "tttt"})
GREEDY = lines(COLD, {"a": "w", "b": "w", "c": "R", "d": "t"})


def test_several_samples() -> None:
    found = summarize_setting(HOT, SAMPLED, seed=0)
    assert (found.items, found.samples) == (4, 4)
    assert found.accuracy == 3 / 16
    assert found.accuracy_punctuation_free == 4 / 16
    assert found.punctuation_free_ci_low <= 4 / 16 <= found.punctuation_free_ci_high
    # a: two right of four, C(2, 2) / C(4, 2) = 1/6 of the pairs are wrong; b: one right of four, 3/6 of them.
    assert found.pass_at == {1: 3 / 16, 2: pytest.approx((5 / 6 + 3 / 6) / 4), 4: 2 / 4}
    # First two samples: a 1234 twice; b 1.234 or 7, both wrong. All four: b 7 twice, wrong; a is a tie.
    assert found.majority_at[1] == found.majority_at[2] == 1 / 4
    assert found.majority_at[4] in (0.0, 1 / 4)
    assert found.accuracy + found.truncated_frac + found.format_error_frac + found.logic_error_frac == 1


def test_right_at_any_temperature() -> None:
    (found,) = accuracy_at_any_temperature({HOT: SAMPLED, COLD: GREEDY}, seed=0)
    assert (found.model, found.prompting, found.temperatures) == ("m", "zero_shot", (1.0, 0.0))
    assert (found.items, found.completions, found.accuracy) == (4, 5, 3 / 4)  # all but d
    assert found.ci_low < 3 / 4 < found.ci_high
    (greedy,) = accuracy_at_any_temperature({COLD: GREEDY}, seed=0)
    assert greedy.accuracy == summarize_setting(COLD, GREEDY, seed=0).accuracy


def test_the_table_says_everything_once() -> None:
    settings = {HOT: SAMPLED, COLD: GREEDY}
    text = results_table(
        [summarize_setting(s, p, 0) for s, p in settings.items()], accuracy_at_any_temperature(settings, 0), []
    )
    assert "pass @1 18.8%, @2 33.3%, @4 50.0%; majority @1 25.0%, @2 25.0%, @4" in text
    assert "right at any of 2 temperatures, 5 completions a problem: 75.0% [" in text


@pytest.mark.parametrize(("n", "ks"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (10, [1, 2, 4, 8, 10])])
def test_doublings(n: int, ks: list[int]) -> None:
    assert doublings(n) == ks
