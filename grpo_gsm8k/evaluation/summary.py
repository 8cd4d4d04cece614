"""Predictions -> accuracies with intervals, and paired comparisons of models on the same problems."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from grpo_gsm8k.evaluation import comparison, sampling
from grpo_gsm8k.evaluation.intervals import mean_interval
from grpo_gsm8k.scoring import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grpo_gsm8k.evaluation.predictions import Prediction

Setting = tuple[str, str, float]  # model, way of asking, temperature


@dataclass(frozen=True, slots=True)
class Result:
    """One model asked in one way at one temperature; fractions are of all completions and sum to 1 with `accuracy`.

    `pass_at_k` and `majority_at_k` take k = `samples`; `agreement` is the share of completions with the commonest
    answer.
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
    truncated_frac: float
    format_error_frac: float
    logic_error_frac: float
    failed: int
    length_mean: float
    pass_at_k: float
    majority_at_k: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Compared:
    """Model `b` less model `a`, asked in the same way; `p_holm` is corrected for the number of pairs."""

    a: str
    b: str
    prompting: str
    temperature: float
    difference: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float
    smallest_difference: float | None  # that this many problems show with a power of 80 %
    verdict: str


def results(setting: Setting, predictions: Sequence[Prediction], seed: int) -> Result:
    """Summarise the completions of one setting; nothing leaves the denominator."""
    scores_IN = _scores(predictions)
    interval = mean_interval(scores_IN, seed)
    kinds = Counter(p.kind for p in predictions)
    total = len(predictions)
    samples = [
        # A truncated completion has no answer, whatever number it ends with.
        sampling.Sample(
            p.item_id,
            p.temperature,
            None if p.kind == ErrorKind.TRUNCATED else p.number,
            p.kind == ErrorKind.CORRECT,
        )
        for p in predictions
    ]
    k = scores_IN.shape[1]
    return Result(
        *setting,
        items=scores_IN.shape[0],
        samples=k,
        accuracy=interval.estimate,
        ci_low=interval.low,
        ci_high=interval.high,
        ci_method=str(interval.method),
        truncated_frac=kinds[ErrorKind.TRUNCATED] / total,
        format_error_frac=kinds[ErrorKind.FORMAT] / total,
        logic_error_frac=kinds[ErrorKind.LOGIC] / total,
        failed=sum(p.failed for p in predictions),
        length_mean=sum(p.tokens for p in predictions) / total,
        pass_at_k=sampling.mean_pass_at_k(samples, k),
        majority_at_k=sampling.majority_at_k(samples, k, seed),
        agreement=sampling.agreement(samples),
    )


def comparisons(by_setting: Mapping[Setting, Sequence[Prediction]], seed: int) -> list[Compared]:
    """Every two models that were asked in the same way at the same temperature."""
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


def table(found: Sequence[Result], compared: Sequence[Compared]) -> str:
    """What a person reads at the end."""
    width = max(len("model"), *(len(r.model) for r in found))
    lines = [
        f"{'model':{width}}  {'asked':14} {'temp.':>5}  accuracy [95 %]           cut  format  logic  pass@k  majority"
    ]
    for r in found:
        interval = f"{r.accuracy:6.1%} [{r.ci_low:.1%}, {r.ci_high:.1%}]"
        rates = f"{r.truncated_frac:5.1%} {r.format_error_frac:6.1%} {r.logic_error_frac:6.1%}"
        many = f"{r.pass_at_k:7.1%} {r.majority_at_k:8.1%}" if r.samples > 1 else ""
        lines.append(f"{r.model:{width}}  {r.prompting:14} {r.temperature:5.2f}  {interval:24} {rates} {many}".rstrip())
        if r.failed:
            lines.append(f"  {r.failed} completions were refused by the engine and count as wrong")
    for c in compared:
        least = "" if c.smallest_difference is None else f"; {c.smallest_difference:.1%} could have been shown"
        lines.append(
            f"{c.b} against {c.a} ({c.prompting}, temperature {c.temperature:g}): {c.verdict}, {c.difference:+.1%} "
            f"[{c.ci_low:+.1%}, {c.ci_high:+.1%}], p {c.p_holm:.2g} (Holm){least}"
        )
    return "\n".join(lines)


def _scores(predictions: Sequence[Prediction]) -> np.ndarray:
    """1 for right, 0 for wrong, [items, samples]."""
    by_item: dict[str, list[bool]] = {}
    for p in predictions:
        by_item.setdefault(p.item_id, []).append(p.kind == ErrorKind.CORRECT)
    return np.array(list(by_item.values()), dtype=float)


def _by_item(predictions: Sequence[Prediction]) -> dict[str, float]:
    names = list(dict.fromkeys(p.item_id for p in predictions))
    return dict(zip(names, _scores(predictions).mean(axis=1).tolist(), strict=True))
