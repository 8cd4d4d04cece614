"""Error kinds, rates and confidence intervals."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import scipy.stats

from grpo_gsm8k.grading.answers import AnswerFormat, Locale, grade
from grpo_gsm8k.grading.problem import Problem
from grpo_gsm8k.grading.rewards import RewardInput, correct_reward
from grpo_gsm8k.grading.scoring import ErrorKind, Graded, accuracy_interval, classify, summarize
from tests.conftest import REPO

TEXTS = ["#### 18", "#### 17", "18", "", "#### 18\n\nQuestion: next\n#### 3"]


@pytest.mark.parametrize(
    ("text", "truncated", "kind"),
    [
        ("#### 18", False, ErrorKind.CORRECT),
        ("#### 18.0", False, ErrorKind.CORRECT),
        ("#### 17", False, ErrorKind.LOGIC),
        ("it is 18", False, ErrorKind.FORMAT),
        ("", False, ErrorKind.FORMAT),
        ("   \n", False, ErrorKind.FORMAT),
        ("", True, ErrorKind.TRUNCATED),
        ("it is", True, ErrorKind.TRUNCATED),
        ("#### 17", True, ErrorKind.TRUNCATED),
        ("#### 18", True, ErrorKind.TRUNCATED),
    ],
)
def test_classify(text: str, truncated: bool, kind: ErrorKind) -> None:
    assert classify(grade(text, "18", AnswerFormat.HASH, Locale.EN), truncated) == kind


@pytest.mark.parametrize(("text", "truncated"), list(product(TEXTS, [False, True])))
def test_correct_reward_and_accuracy_agree(text: str, truncated: bool) -> None:
    verdict = grade(text, "18", AnswerFormat.HASH, Locale.EN)
    paid = correct_reward(
        RewardInput(Problem("1", "q", "#### 18", "18"), "q", text, (), "length" if truncated else "stop", verdict)
    )
    assert paid == float(classify(verdict, truncated) == ErrorKind.CORRECT)


def test_summary_of_known_counts() -> None:
    kinds = [ErrorKind.CORRECT] * 4 + [ErrorKind.TRUNCATED] * 3 + [ErrorKind.FORMAT] * 2 + [ErrorKind.LOGIC]
    result = summarize([Graded(str(i), kind, i) for i, kind in enumerate(kinds)], seed=0)
    assert (result.n, result.accuracy, result.truncated_frac) == (10, 0.4, 0.3)
    assert (result.format_error_frac, result.logic_error_frac, result.length_mean) == (0.2, 0.1, 4.5)
    assert 0 <= result.accuracy_ci_low < 0.4 < result.accuracy_ci_high <= 1


def test_rates_sum_to_one_whatever_the_mix() -> None:
    rng = random.Random(0)
    for _ in range(100):
        kinds = rng.choices(list(ErrorKind), weights=[rng.random() for _ in ErrorKind], k=rng.randrange(1, 60))
        s = summarize([Graded("x", kind, 1) for kind in kinds], seed=0)
        total = s.accuracy + s.truncated_frac + s.format_error_frac + s.logic_error_frac
        assert total == pytest.approx(1.0, abs=1e-12)
        assert s.accuracy_ci_low <= s.accuracy <= s.accuracy_ci_high


def test_metric_keys() -> None:
    metrics = summarize([Graded("a", ErrorKind.CORRECT, 5)], seed=0).metrics("val/")
    names = ["accuracy", "accuracy_ci_low", "accuracy_ci_high", "truncated_frac"]
    names += ["format_error_frac", "logic_error_frac", "length_mean"]
    assert list(metrics) == [f"val/{name}" for name in names]
    assert all(type(value) is float for value in metrics.values())


def test_empty_is_an_error() -> None:
    with pytest.raises(ValueError, match="no outcomes"):
        summarize([], seed=0)
    with pytest.raises(ValueError, match="no outcomes"):
        accuracy_interval([], seed=0)


@pytest.mark.parametrize("arguments", [{"level": 0.0}, {"level": 1.0}, {"level": 95.0}, {"resamples": 0}])
def test_senseless_interval_arguments(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="level="):
        accuracy_interval([True, False], seed=0, **arguments)  # type: ignore[arg-type]


def test_interval_is_seeded_and_ignores_order() -> None:
    outcomes = [True] * 30 + [False] * 70
    assert accuracy_interval(outcomes, seed=3) == accuracy_interval(outcomes[::-1], seed=3)
    narrow, wide = accuracy_interval(outcomes, 3, level=0.5), accuracy_interval(outcomes, 3, level=0.99)
    assert wide[0] < narrow[0] < 0.3 < narrow[1] < wide[1]


@pytest.mark.parametrize(("right", "n"), [(1, 8), (30, 100), (400, 512)])
def test_binomial_draws_are_the_bootstrap(right: int, n: int) -> None:
    outcomes = np.arange(n) < right
    reference = scipy.stats.bootstrap(
        (outcomes.astype(float),),
        np.mean,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(0),
        batch=500,
    ).confidence_interval
    ours = accuracy_interval(outcomes.tolist(), seed=1)
    assert ours == pytest.approx((reference.low, reference.high), abs=1.01 / n)


@pytest.mark.parametrize(("n", "level"), [(1, 0.95), (20, 0.95), (1319, 0.95), (50, 0.8)])
def test_unanimous_outcomes_give_clopper_pearson(n: int, level: float) -> None:
    for outcome in (True, False):
        exact = scipy.stats.binomtest(n * outcome, n).proportion_ci(level, method="exact")
        assert accuracy_interval([outcome] * n, 0, level=level) == pytest.approx((exact.low, exact.high), rel=1e-9)


@pytest.mark.parametrize("accuracy", [0.2, 0.5, 0.98])
def test_interval_covers_the_truth_about_as_often_as_it_says(accuracy: float) -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for trial in range(300):
        low, high = accuracy_interval((rng.random(200) < accuracy).tolist(), seed=trial, resamples=1000)
        covered += low <= accuracy <= high
    assert 0.87 < covered / 300 < 0.99


def test_scoring_does_not_import_torch() -> None:
    heavy = ("torch", "transformers", "wandb")
    code = f"import sys, grpo_gsm8k.grading.scoring; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, check=False, timeout=60).returncode == 0
