"""Summaries of several samples at several temperatures, compared with numbers counted by hand."""

from __future__ import annotations

import numpy as np
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
    rows = [line for line in text.splitlines() if line.startswith(("asked", "zero_shot"))]
    assert (len(rows), max(len(line) for line in rows) <= 80) == (3, True)
    assert text.splitlines().count("m") == 1  # the model's lines are below its name
    assert "pass @1 18.8%, @2 33.3%, @4 50.0%; majority @1 25.0%, @2 25.0%, @4" in text
    assert "right at any of 2 temperatures, 5 completions a problem: 75.0 % [" in text


@pytest.mark.parametrize(("n", "ks"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (10, [1, 2, 4, 8, 10])])
def test_doublings(n: int, ks: list[int]) -> None:
    assert doublings(n) == ks


def test_intervals_of_pass_at_k_and_majority_resample_the_problems() -> None:
    """Pass@k of 60 problems with c of 4 right is counted by hand, and resampled here without our code."""
    rng = np.random.default_rng(5)
    outcomes = {f"q{i}": "".join(rng.permutation(list("R" * (i % 5) + "w" * (4 - i % 5)))) for i in range(60)}
    found = summarize_setting(HOT, lines(HOT, outcomes), seed=0)
    wrong_pairs = np.array([6, 3, 1, 0, 0])  # of 6 pairs, by the number of right ones
    values = {1: np.arange(5) / 4, 2: 1 - wrong_pairs / 6, 4: np.array([0, 1, 1, 1, 1])}
    for k, by_right in values.items():
        items = by_right[np.arange(60) % 5]
        assert found.pass_at[k] == pytest.approx(items.mean())
        drawn = items[rng.integers(0, 60, size=(20_000, 60))].mean(axis=1)
        assert found.pass_at_ci[k] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.015)
    low, high = found.majority_at_ci[4]
    assert low < found.majority_at[4] < high


def test_the_majority_over_all_temperatures() -> None:
    hot = lines(HOT, {"a": "Rw", "b": "ww", "c": "wR", "d": "tt"})
    cold = lines(COLD, {"a": "R", "b": "R", "c": "f", "d": "R"})
    (found,) = accuracy_at_any_temperature({HOT: hot, COLD: cold}, seed=0)
    # a: 2 of 3 right; b: 7 twice; c: a tie of 7 and 1234, f has no vote; d: truncated ones have no vote.
    assert found.majority in (2 / 4, 3 / 4)
    tied = {
        accuracy_at_any_temperature({HOT: lines(HOT, {"c": order})}, seed)[0].majority
        for order in ("wR", "Rw")
        for seed in (0,)
    }
    assert len(tied) == 1  # the seed decides, not the order
    by_seed = {accuracy_at_any_temperature({HOT: lines(HOT, {"c": "wR"})}, seed)[0].majority for seed in range(20)}
    assert by_seed == {0.0, 1.0}
    assert found.accuracy_punctuation_free == 1.0
