"""Paired comparisons on the same problems: of models asked in the same way, and of ways of asking the same model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from grpo_gsm8k.evaluation.results import item_accuracies
from grpo_gsm8k.evaluation.statistics import comparison

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grpo_gsm8k.evaluation.predictions import Prediction
    from grpo_gsm8k.evaluation.results import Setting


@dataclass(frozen=True, slots=True)
class Compared:
    """Model `b` minus model `a` in the same setting; `p_holm` is corrected for the number of pairs of models."""

    a: str
    b: str
    prompting: str
    temperature: float
    difference: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float
    smallest_difference: float | None  # detectable with this many problems at a power of 80 %
    verdict: str


@dataclass(frozen=True, slots=True)
class ComparedWays:
    """Prompting variant `b` minus variant `a`; `p_holm` is corrected for the number of pairs of variants."""

    model: str
    a: str
    b: str
    temperature: float
    gained: int  # problems on which b scores higher
    lost: int
    difference: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float
    smallest_difference: float | None
    verdict: str


class _Corrected(NamedTuple):
    found: comparison.Comparison
    p_holm: float


def compare_models(by_setting: Mapping[Setting, Sequence[Prediction]], seed: int) -> list[Compared]:
    """Compare every two models with the same prompting variant and temperature."""
    pairs = [(a, b) for a, b in combinations(by_setting, 2) if a[1:] == b[1:]]
    return [
        Compared(a[0], b[0], *a[1:], **_numbers(one))
        for (a, b), one in zip(pairs, _compared(by_setting, pairs, seed), strict=True)
    ]


def compare_ways(by_setting: Mapping[Setting, Sequence[Prediction]], seed: int) -> list[ComparedWays]:
    """Compare every two prompting variants of the same model at the same temperature."""
    pairs = [(a, b) for a, b in combinations(by_setting, 2) if (a[0], a[2]) == (b[0], b[2])]
    return [
        ComparedWays(a[0], a[1], b[1], a[2], gained=one.found.gained, lost=one.found.lost, **_numbers(one))
        for (a, b), one in zip(pairs, _compared(by_setting, pairs, seed), strict=True)
    ]


def _compared(
    by_setting: Mapping[Setting, Sequence[Prediction]], pairs: Sequence[tuple[Setting, Setting]], seed: int
) -> list[_Corrected]:
    """Compare pairs of settings, with Holm's correction for the number of pairs."""
    scores = {setting: item_accuracies(predictions) for setting, predictions in by_setting.items()}
    found = [comparison.compare(scores[a], scores[b], seed) for a, b in pairs]
    corrected = comparison.holm([one.p_value for one in found]) if found else ()
    return [_Corrected(one, p_holm) for one, p_holm in zip(found, corrected, strict=True)]


def _numbers(one: _Corrected) -> dict[str, Any]:
    found, p_holm = one
    return {
        "difference": found.difference.estimate,
        "ci_low": found.difference.low,
        "ci_high": found.difference.high,
        "p": found.p_value,
        "p_holm": p_holm,
        "smallest_difference": found.detectable,
        "verdict": str(comparison.verdict(found.difference, p_holm)),
    }
