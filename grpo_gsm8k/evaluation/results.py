"""Accuracies with confidence intervals, and paired comparisons of models, computed from predictions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.evaluation.statistics import comparison, sampling
from grpo_gsm8k.evaluation.statistics.intervals import mean_interval
from grpo_gsm8k.grading.scoring import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from grpo_gsm8k.evaluation.predictions import Prediction

Setting = tuple[str, str, float]  # model, prompting variant, temperature


@dataclass(frozen=True, slots=True)
class SettingResult:
    """Results of one setting. The fractions of all completions and `accuracy` sum to 1.

    With n samples `accuracy` is mean@n. `pass_at` and `majority_at` are pass@k and majority@k by k: 1, 2, 4, ... and n.
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
    majority_at: dict[int, float]
    agreement: float


@dataclass(frozen=True, slots=True)
class AnyTemperature:
    """The share of problems with at least one right completion at any of the temperatures."""

    model: str
    prompting: str
    temperatures: tuple[float, ...]
    items: int
    completions: int  # per problem, over all temperatures
    accuracy: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True, slots=True)
class Compared:
    """Model `b` minus model `a` in the same setting; `p_holm` is corrected for the number of pairs."""

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


def summarize_setting(setting: Setting, predictions: Sequence[Prediction], seed: int) -> SettingResult:
    """Summarize the completions of one setting; every denominator counts all of them."""
    scores_IN = _scores(predictions)
    interval = mean_interval(scores_IN, seed)
    lenient = mean_interval(_by_problem((p.item_id, p.right_unpunctuated) for p in predictions), seed)
    kinds = Counter(p.kind for p in predictions)
    total = len(predictions)
    samples = _samples(predictions)
    n = scores_IN.shape[1]
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
        pass_at={k: sampling.mean_pass_at_k(samples, k) for k in doublings(n)},
        majority_at={k: sampling.majority_at_k(samples, k, seed) for k in doublings(n)},
        agreement=sampling.agreement(samples),
    )


def accuracy_at_any_temperature(by_setting: Mapping[Setting, Sequence[Prediction]], seed: int) -> list[AnyTemperature]:
    """Return one entry per model and prompting variant; for a single greedy completion it equals the accuracy."""
    groups: dict[tuple[str, str], list[Setting]] = {}
    for setting in by_setting:
        groups.setdefault(setting[:2], []).append(setting)
    found = []
    for (model, prompting), settings in groups.items():
        samples = _samples([p for setting in settings for p in by_setting[setting]])
        right = sampling.right_at_any_temperature(samples)
        interval = mean_interval(list(right.values()), seed)
        temperatures = tuple(temperature for _, _, temperature in settings)
        per_problem = len(samples) // len(right)
        ends = (interval.estimate, interval.low, interval.high)
        found.append(AnyTemperature(model, prompting, temperatures, len(right), per_problem, *ends))
    return found


def doublings(n: int) -> list[int]:
    """Return 1, 2, 4, ... up to n, and n itself."""
    return [*(1 << power for power in range((n - 1).bit_length())), n]


def compare_models(by_setting: Mapping[Setting, Sequence[Prediction]], seed: int) -> list[Compared]:
    """Compare every two models with the same prompting variant and temperature."""
    pairs = [(a, b) for a, b in combinations(by_setting, 2) if a[1:] == b[1:]]
    found = [comparison.compare(_by_item(by_setting[a]), _by_item(by_setting[b]), seed) for a, b in pairs]
    corrected = comparison.holm([c.p_value for c in found]) if found else ()
    return [
        Compared(
            a[0],
            b[0],
            *a[1:],
            difference=c.difference.estimate,
            ci_low=c.difference.low,
            ci_high=c.difference.high,
            p=c.p_value,
            p_holm=p_holm,
            smallest_difference=c.detectable,
            verdict=str(comparison.verdict(c.difference, p_holm)),
        )
        for (a, b), c, p_holm in zip(pairs, found, corrected, strict=True)
    ]


def results_table(
    found: Sequence[SettingResult], anywhere: Sequence[AnyTemperature], compared: Sequence[Compared]
) -> str:
    """Format all results as text."""
    width = max(len("model"), *(len(r.model) for r in found))
    head = f"{'model':{width}}  {'asked':14} {'temp.':>5}  {'accuracy [95 %]':24} {'punctuation-free [95 %]':24}"
    lines = [f"{head} {'cut':>5} {'format':>6} {'logic':>6}"]
    for r in found:
        strict = _interval(r.accuracy, r.ci_low, r.ci_high)
        lenient = _interval(r.accuracy_punctuation_free, r.punctuation_free_ci_low, r.punctuation_free_ci_high)
        rates = f"{r.truncated_frac:5.1%} {r.format_error_frac:6.1%} {r.logic_error_frac:6.1%}"
        lines.append(f"{r.model:{width}}  {r.prompting:14} {r.temperature:5.2f}  {strict:24} {lenient:24} {rates}")
        if r.samples > 1:
            shown = (f"{name} {_by_k(values)}" for name, values in (("pass", r.pass_at), ("majority", r.majority_at)))
            lines.append(f"  {'; '.join(shown)}")
        if r.failed:
            lines.append(f"  {r.failed} completions were refused by the engine and count as wrong")
    for a in anywhere:
        if a.completions > 1:
            right = _interval(a.accuracy, a.ci_low, a.ci_high).strip()
            which = f"at any of {len(a.temperatures)} temperatures" if len(a.temperatures) > 1 else "ever"
            lines.append(f"{a.model} ({a.prompting}), right {which}, {a.completions} completions a problem: {right}")
    for c in compared:
        least = "" if c.smallest_difference is None else f"; {c.smallest_difference:.1%} could have been shown"
        lines.append(
            f"{c.b} against {c.a} ({c.prompting}, temperature {c.temperature:g}): {c.verdict}, {c.difference:+.1%} "
            f"[{c.ci_low:+.1%}, {c.ci_high:+.1%}], p {c.p_holm:.2g} (Holm){least}"
        )
    return "\n".join(lines)


def _interval(estimate: float, low: float, high: float) -> str:
    return f"{estimate:6.1%} [{low:.1%}, {high:.1%}]"


def _by_k(values: Mapping[int, float]) -> str:
    return ", ".join(f"@{k} {value:.1%}" for k, value in values.items())


def _samples(predictions: Sequence[Prediction]) -> list[sampling.SampledAnswer]:
    """Convert predictions; a truncated completion has no answer, whatever number it contains."""
    return [
        sampling.SampledAnswer(
            p.item_id,
            p.temperature,
            None if p.kind == ErrorKind.TRUNCATED else p.number,
            p.kind == ErrorKind.CORRECT,
        )
        for p in predictions
    ]


def _scores(predictions: Sequence[Prediction]) -> np.ndarray:
    """Return 1 for right, 0 for wrong, [items, samples]."""
    return _by_problem((p.item_id, p.kind == ErrorKind.CORRECT) for p in predictions)


def _by_problem(verdicts: Iterable[tuple[str, bool]]) -> np.ndarray:
    by_item: dict[str, list[bool]] = {}
    for item_id, right in verdicts:
        by_item.setdefault(item_id, []).append(right)
    return np.array(list(by_item.values()), dtype=float)


def _by_item(predictions: Sequence[Prediction]) -> dict[str, float]:
    names = list(dict.fromkeys(p.item_id for p in predictions))
    return dict(zip(names, _scores(predictions).mean(axis=1).tolist(), strict=True))
