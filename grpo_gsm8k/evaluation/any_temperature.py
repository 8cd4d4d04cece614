"""Results over all temperatures: right at least once, and the majority of all completions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpo_gsm8k.evaluation.results import sampled_answers
from grpo_gsm8k.evaluation.statistics import sampling
from grpo_gsm8k.evaluation.statistics.intervals import mean_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grpo_gsm8k.evaluation.predictions import Prediction
    from grpo_gsm8k.evaluation.results import Setting


@dataclass(frozen=True, slots=True)
class AnyTemperature:
    """Shares of problems, over all completions of a model and a prompting variant at all of its temperatures.

    `accuracy`: at least one completion is right; `accuracy_punctuation_free`: the same with the verdict of
    `grading.punctuation`. `majority`: the most common answer is right; a tie is drawn by seed and problem.
    """

    model: str
    prompting: str
    temperatures: tuple[float, ...]
    items: int
    completions: int  # per problem, over all temperatures
    accuracy: float
    ci_low: float
    ci_high: float
    accuracy_punctuation_free: float
    punctuation_free_ci_low: float
    punctuation_free_ci_high: float
    majority: float
    majority_ci_low: float
    majority_ci_high: float


def accuracy_at_any_temperature(by_setting: Mapping[Setting, Sequence[Prediction]], seed: int) -> list[AnyTemperature]:
    """Return one entry per model and prompting variant; for a single greedy completion it equals the accuracy."""
    groups: dict[tuple[str, str], list[Setting]] = {}
    for setting in by_setting:
        groups.setdefault(setting[:2], []).append(setting)
    found = []
    for (model, prompting), settings in groups.items():
        predictions = [p for setting in settings for p in by_setting[setting]]
        temperatures = tuple(temperature for _, _, temperature in settings)
        found.append(_over_temperatures(model, prompting, temperatures, predictions, seed))
    return found


def _over_temperatures(
    model: str, prompting: str, temperatures: tuple[float, ...], predictions: Sequence[Prediction], seed: int
) -> AnyTemperature:
    samples = sampled_answers(predictions)
    ever = sampling.right_at_any_temperature(samples)
    lenient: dict[str, bool] = {}
    for p in predictions:
        lenient[p.item_id] = lenient.get(p.item_id, False) or p.right_unpunctuated
    completions = len(samples) // len(ever)
    majority = sampling.right_by_majority(samples, completions, seed)
    ends: list[float] = []
    for verdicts in (ever, lenient, majority):
        interval = mean_interval(list(verdicts.values()), seed)
        ends += (interval.estimate, interval.low, interval.high)
    return AnyTemperature(model, prompting, temperatures, len(ever), completions, *ends)
