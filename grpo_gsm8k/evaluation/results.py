"""Accuracies of one setting with confidence intervals, computed from predictions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.evaluation.statistics import sampling
from grpo_gsm8k.evaluation.statistics.intervals import mean_interval
from grpo_gsm8k.grading.scoring import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from grpo_gsm8k.evaluation.predictions import Prediction

Setting = tuple[str, str, float]  # model, prompting variant, temperature


@dataclass(frozen=True, slots=True)
class SettingResult:
    """Results of one setting. The fractions of all completions and `accuracy` sum to 1.

    With n samples `accuracy` is mean@n. `pass_at` and `majority_at` are pass@k and majority@k by k: 1, 2, 4, ... and n,
    with 95 % intervals over the items.
    `accuracy_punctuation_free` uses the verdict of `grading.punctuation`, so it is at least `accuracy`. `agreement` is
    the share of completions with the most common answer.
    """

    model: str
    prompting: str
    temperature: float
    items: int
    samples: int
    accuracy: float
    ci_low: float
    ci_high: float
    ci_method: str
    accuracy_punctuation_free: float
    punctuation_free_ci_low: float
    punctuation_free_ci_high: float
    truncated_frac: float
    format_error_frac: float
    logic_error_frac: float
    failed: int
    length_mean: float
    pass_at: dict[int, float]
    pass_at_ci: dict[int, tuple[float, float]]
    majority_at: dict[int, float]
    majority_at_ci: dict[int, tuple[float, float]]
    agreement: float


def summarize_setting(setting: Setting, predictions: Sequence[Prediction], seed: int) -> SettingResult:
    """Summarize the completions of one setting; every denominator counts all of them."""
    scores_IN = _scores(predictions)
    interval = mean_interval(scores_IN, seed)
    lenient = mean_interval(_by_problem((p.item_id, p.right_unpunctuated) for p in predictions), seed)
    kinds = Counter(p.kind for p in predictions)
    total = len(predictions)
    samples = sampled_answers(predictions)
    n = scores_IN.shape[1]
    pass_at = {k: sampling.item_pass_at_k(samples, k) for k in doublings(n)}
    majority_at = {k: sampling.right_by_majority(samples, k, seed) for k in doublings(n)}
    return SettingResult(
        *setting,
        items=scores_IN.shape[0],
        samples=n,
        accuracy=interval.estimate,
        ci_low=interval.low,
        ci_high=interval.high,
        ci_method=str(interval.method),
        accuracy_punctuation_free=lenient.estimate,
        punctuation_free_ci_low=lenient.low,
        punctuation_free_ci_high=lenient.high,
        truncated_frac=kinds[ErrorKind.TRUNCATED] / total,
        format_error_frac=kinds[ErrorKind.FORMAT] / total,
        logic_error_frac=kinds[ErrorKind.LOGIC] / total,
        failed=sum(p.failed for p in predictions),
        length_mean=sum(p.tokens for p in predictions) / total,
        pass_at={k: sampling.mean(values.values()) for k, values in pass_at.items()},
        pass_at_ci={k: _ends(values, seed) for k, values in pass_at.items()},
        majority_at={k: sampling.mean(values.values()) for k, values in majority_at.items()},
        majority_at_ci={k: _ends(values, seed) for k, values in majority_at.items()},
        agreement=sampling.agreement(samples),
    )


def doublings(n: int) -> list[int]:
    """Return 1, 2, 4, ... up to n, and n itself."""
    return [*(1 << power for power in range((n - 1).bit_length())), n]


def vote(prediction: Prediction) -> str | None:
    """Return the canonical answer that a completion votes for, None if it is truncated or has no answer."""
    return None if prediction.kind == ErrorKind.TRUNCATED else prediction.number


def sampled_answers(predictions: Sequence[Prediction]) -> list[sampling.SampledAnswer]:
    """Convert predictions for the statistics of several samples."""
    return [sampling.SampledAnswer(p.item_id, p.temperature, vote(p), p.kind == ErrorKind.CORRECT) for p in predictions]


def item_accuracies(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Return the share of right completions by item."""
    names = list(dict.fromkeys(p.item_id for p in predictions))
    return dict(zip(names, _scores(predictions).mean(axis=1).tolist(), strict=True))


def _ends(values: Mapping[str, float], seed: int) -> tuple[float, float]:
    interval = mean_interval(list(values.values()), seed)
    return interval.low, interval.high


def _scores(predictions: Sequence[Prediction]) -> np.ndarray:
    """Return 1 for right, 0 for wrong, [items, samples]."""
    return _by_problem((p.item_id, p.kind == ErrorKind.CORRECT) for p in predictions)


def _by_problem(verdicts: Iterable[tuple[str, bool]]) -> np.ndarray:
    by_item: dict[str, list[bool]] = {}
    for item_id, right in verdicts:
        by_item.setdefault(item_id, []).append(right)
    return np.array(list(by_item.values()), dtype=float)
