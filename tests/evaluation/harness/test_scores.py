"""lm-eval's results as records, and changes from the baseline."""

from __future__ import annotations

import math

import pytest

from grpo_gsm8k.evaluation.harness.scores import Change, Score, changes_from_baseline, scores_of, scores_table

FOUND = {
    "results": {
        "choice": {"alias": "choice", "acc,none": 0.5, "acc_stderr,none": 0.1, "sample_len": 25},
        "text": {"word_perplexity,none": 8.0, "word_perplexity_stderr,none": "N/A"},
    },
    "groups": {"both": {"acc,none": 0.25, "acc_stderr,none": 0.05}},
    "higher_is_better": {"choice": {"acc": True}, "text": {"word_perplexity": False}},
    "n-samples": {"choice": {"original": 100, "effective": 25}},
}


def test_scores_of_a_result() -> None:
    assert scores_of("m", FOUND) == [
        Score("m", "choice", "acc", "none", 0.5, 0.1, 25, True),
        Score("m", "text", "word_perplexity", "none", 8.0, None, None, False),
        Score("m", "both", "acc", "none", 0.25, 0.05, None, True),
    ]


def change(before: float, after: float, stderr: float | None, higher: bool, threshold: float = 0.02) -> Change:
    pair = [Score(m, "t", "x", "none", v, stderr, 9, higher) for m, v in (("base", before), ("new", after))]
    (found,) = changes_from_baseline(pair, "base", threshold)
    assert (found.baseline, found.model, found.difference) == ("base", "new", after - before)
    return found


@pytest.mark.parametrize(
    ("before", "after", "stderr", "higher", "regression", "verdict"),
    [
        (0.50, 0.49, 0.001, True, False, "worse"),  # real, but small
        (0.50, 0.47, 0.001, True, True, "worse"),
        (0.50, 0.47, 0.05, True, True, "noise"),  # large, but so is the error
        (0.50, 0.60, 0.01, True, False, "better"),
        (10.0, 10.1, None, False, False, "unknown"),  # 1 % more perplexity
        (10.0, 10.3, None, False, True, "unknown"),
        (10.0, 9.0, 0.1, False, False, "better"),
        (0.5, 0.5, None, True, False, "noise"),
    ],
)
def test_regressions(
    before: float, after: float, stderr: float | None, higher: bool, regression: bool, verdict: str
) -> None:
    found = change(before, after, stderr, higher)
    assert (found.regression, found.verdict) == (regression, verdict)


def test_noise_ends_at_196_standard_errors() -> None:
    width = math.sqrt(0.03**2 + 0.03**2)
    assert change(0.5, 0.5 - 1.959 * width, 0.03, True).verdict == "noise"
    assert change(0.5, 0.5 - 1.961 * width, 0.03, True).verdict == "worse"


def test_the_table_names_the_regression() -> None:
    scores = [Score(m, "t", "acc", "none", v, 0.01, 9, True) for m, v in (("base", 0.6), ("new", 0.5))]
    text = scores_table(scores, changes_from_baseline(scores, "base", 0.02))
    assert "0.6000 ± 0.0100  base" in text
    assert "-0.1000 ± 0.0141  worse  REGRESSION  new" in text
    assert "REGRESSION" not in scores_table(scores, [])


def test_what_the_baseline_has_not_is_not_compared() -> None:
    assert changes_from_baseline([Score("new", "t", "acc", "none", 0.1, None, 9, True)], "base", 0.02) == []
