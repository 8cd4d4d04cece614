"""Comparisons between ways of asking, with p values counted by hand."""

from __future__ import annotations

from math import comb

import pytest

from grpo_gsm8k.evaluation.comparisons import compare_models, compare_ways
from grpo_gsm8k.evaluation.predictions import Prediction
from tests.evaluation.test_results import lines

Answers = dict[tuple[str, str, float], list[Prediction]]


def asked(model: str, way: str, temperature: float, right: str) -> tuple[tuple[str, str, float], list[Prediction]]:
    """One completion per question: R is right, w is wrong."""
    setting = (model, way, temperature)
    return setting, lines(setting, {f"q{i}": outcome for i, outcome in enumerate(right)})


BARE, FULL, SHOWN = "wwwwwwwwwwRR", "RRRRRRRRwwwR", "RRRRRRRRwwRR"


def test_ways_are_paired_within_model_and_temperature() -> None:
    settings = (
        *(("m", "zero_shot", 0.0, BARE), ("m", "one_shot", 0.0, FULL), ("n", "zero_shot", 0.0, BARE)),
        *(("m", "zero_shot", 1.0, BARE), ("m", "few_shot", 1.0, BARE)),
    )
    answers: Answers = dict(asked(*setting) for setting in settings)
    found = compare_ways(answers, seed=0)
    assert [(c.model, c.a, c.b, c.temperature) for c in found] == [
        ("m", "zero_shot", "one_shot", 0.0),
        ("m", "zero_shot", "few_shot", 1.0),
    ]
    better, same = found
    assert (better.gained, better.lost) == (8, 1)
    assert better.difference == pytest.approx(7 / 12)
    p = 2 * (comb(9, 0) + comb(9, 1)) / 2**9  # McNemar: at most 1 of 9 discordant pairs, on either side
    assert better.p == pytest.approx(p)
    assert better.p_holm == pytest.approx(2 * p)  # Holm: the smaller of two
    assert better.ci_low < better.difference < better.ci_high
    assert better.verdict == "noise"  # 0.039 alone, 0.078 corrected
    assert (same.gained, same.lost, same.p, same.p_holm, same.verdict) == (0, 0, 1.0, 1.0, "noise")
    assert [(c.a, c.b) for c in compare_models(answers, seed=0)] == [("m", "n")]


def test_all_pairs_are_corrected_together() -> None:
    ways = {"zero_shot": BARE, "one_shot": FULL, "few_shot": SHOWN}
    found = compare_ways(dict(asked("m", way, 0.0, right) for way, right in ways.items()), seed=0)
    p = {(c.a, c.b): c.p for c in found}
    exact = {
        ("zero_shot", "one_shot"): 2 * 10 / 2**9,
        ("zero_shot", "few_shot"): 2 / 2**8,  # 8 gained, none lost
        ("one_shot", "few_shot"): 1.0,  # 1 gained
    }
    assert p == pytest.approx(exact)
    assert [c.p_holm for c in found] == pytest.approx([2 * 20 / 2**9, 3 * 2 / 2**8, 1.0])
