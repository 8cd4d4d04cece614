"""Diagnostics of the completions of one setting: diversity, repetition, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from grpo_gsm8k.evaluation.statistics import calibration, contamination, diversity
from grpo_gsm8k.grading.scoring import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpo_gsm8k.evaluation.predictions import Prediction
    from grpo_gsm8k.grading.problem import Problem

SHOWN_PAIRS = 20


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """None means not computable. `jaccard` and `answer_entropy` are means over problems with several samples."""

    distinct_3: float | None
    jaccard: float | None
    answer_entropy: float | None  # nats
    repetition: float
    calibration_error: float | None
    auroc: float | None  # mean log-probability as a predictor of correctness


def diagnose_completions(predictions: Sequence[Prediction]) -> Diagnostics:
    """Compute the diagnostics of all completions of one setting."""
    by_item: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        by_item.setdefault(prediction.item_id, []).append(prediction)
    several = [group for group in by_item.values() if len(group) > 1]
    known = [p for p in predictions if p.mean_logprob is not None]
    confidences = [calibration.confidence([p.mean_logprob]) for p in known if p.mean_logprob is not None]
    right = [p.kind == ErrorKind.CORRECT for p in known]
    bins = calibration.reliability_bins(confidences, right) if known else []
    similarity = [j for group in several if (j := diversity.mean_trigram_jaccard([p.text for p in group])) is not None]
    return Diagnostics(
        distinct_3=diversity.distinct_n([p.text for p in predictions], 3),
        jaccard=fmean(similarity) if similarity else None,
        answer_entropy=fmean(diversity.answer_entropy([p.number for p in g]) for g in several) if several else None,
        repetition=fmean(diversity.repetition(p.text) for p in predictions),
        calibration_error=calibration.expected_calibration_error(bins) if bins else None,
        auroc=calibration.auroc(confidences, right) if known else None,
    )


@dataclass(frozen=True, slots=True)
class Contamination:
    """Numbers of evaluated problems whose question is in train, by either measure, and the most similar pairs."""

    overlapping: int
    near_duplicates: int
    examples: tuple[tuple[str, str, float], ...]  # id of the evaluated problem, id of the train problem, similarity


def find_contamination(evaluated: Sequence[Problem], train: Sequence[Problem], seed: int) -> Contamination:
    """Search the train questions for the evaluated ones: shared runs of 13 words, and near-duplicates."""
    asked, known = [p.question for p in evaluated], [p.question for p in train]
    overlaps = contamination.ngram_overlaps(asked, known)
    duplicates = contamination.near_duplicates(asked, known, seed)
    worst = sorted({*overlaps, *duplicates}, key=lambda pair: -pair.score)[:SHOWN_PAIRS]
    return Contamination(
        overlapping=len({pair.test for pair in overlaps}),
        near_duplicates=len({pair.test for pair in duplicates}),
        examples=tuple((evaluated[p.test].id, train[p.train].id, p.score) for p in worst),
    )
